// A command-line sampler: from a bundle and a step file to a picture, by ONNX Runtime.
#include <array>
#include <chrono>
#include <cstdio>
#include <memory>

#include "dpmrt/dpmrt.hpp"
#include "dpmrt/onnxruntime.h"
#include "options.h"
#include "picture.h"

namespace {

template <class Kind, void (*release)(Kind *)>
struct Freed {
    void operator()(Kind *held) const { release(held); }
};

using Bundle = std::unique_ptr<dpmrt_bundle, Freed<dpmrt_bundle, dpmrt_bundle_free>>;
using Conditions = std::unique_ptr<dpmrt_conditions, Freed<dpmrt_conditions, dpmrt_conditions_free>>;
using Network = std::unique_ptr<dpmrt_onnxruntime, Freed<dpmrt_onnxruntime, dpmrt_onnxruntime_free>>;

// Calls a C function that makes a handle, its last arguments being where to put it and the error.
template <class Held, class Make>
Held made(Make make) {
    typename Held::pointer handle = nullptr;
    dpmrt_error error;
    dpmrt::check(make(&handle, &error), error);
    return Held(handle);
}

template <class Item>
std::vector<Item> cycled(const char *name, const std::vector<Item> &items, std::size_t batch) {
    if (items.size() > batch) throw UsageError(std::string(name) + " lists more than there are samples");
    std::vector<Item> whole;
    for (std::size_t k = 0; k < batch; ++k) whole.push_back(items[k % items.size()]);
    return whole;
}

std::vector<std::size_t> sample_shape(const Options &options, const dpmrt_bundle_info &info, std::size_t batch) {
    std::vector<std::size_t> shape{batch};
    for (const std::int64_t side : options.shape) shape.push_back(static_cast<std::size_t>(side));
    if (options.shape.empty()) {
        for (std::size_t k = 0; k < info.rank; ++k) shape.push_back(static_cast<std::size_t>(info.sample[k]));
    }
    for (const std::size_t side : shape) {
        if (side == 0) throw UsageError("the size of the samples is not known: give --shape");
    }
    if (shape.size() != 4) throw UsageError("samples of this shape are no pictures");
    return shape;
}

void sample(const Options &options) {
    const auto bundle = made<Bundle>(
        [&](auto **into, dpmrt_error *error) { return dpmrt_bundle_open(options.bundle.c_str(), into, error); });
    dpmrt_bundle_info info;
    dpmrt_error error;
    dpmrt::check(dpmrt_bundle_describe(bundle.get(), &info, &error), error);
    std::vector<std::int64_t> labels = options.labels;
    for (std::int64_t label = 0; options.all_labels && label < info.classes; ++label) labels.push_back(label);
    if (options.all_labels && labels.empty()) throw UsageError("--label all: the bundle does not say which classes there are");
    const std::size_t asked = std::max(labels.size(), options.guidance.size());
    const std::size_t batch = options.batch != 0 ? options.batch : std::max<std::size_t>(asked, 1);
    const std::vector<std::size_t> shape = sample_shape(options, info, batch);

    const auto conditions = made<Conditions>(
        [&](auto **into, dpmrt_error *text) { return dpmrt_conditions_create(bundle.get(), batch, into, text); });
    if (!labels.empty()) {
        labels = cycled("--label", labels, batch);
        dpmrt::check(dpmrt_conditions_labels(conditions.get(), labels.data(), batch, &error), error);
    }
    dpmrt_run_params run = dpmrt_run_default_params();
    run.seed = options.seed;
    std::vector<double> scales = options.guidance;
    if (scales.empty()) scales = {info.guided != 0 && !labels.empty() ? info.guidance_scale : 1.0};
    if (!options.guidance.empty() && labels.empty()) throw UsageError("--guidance has nothing to guide to: give --label");
    scales = cycled("--guidance", scales, batch);
    const bool guided = std::any_of(scales.begin(), scales.end(), [](double scale) { return scale != 1; });
    if (guided) {
        if (info.guided == 0) throw UsageError("--guidance: the network was not trained for it, or the bundle does not say so");
        run.guidance.scales = scales.data();
        run.guidance.scale_count = batch;
        run.guidance.rescale = options.rescale;
        run.guidance.unit = options.unit;
        run.guidance.schedule = options.schedule;
        if (!options.interval.empty()) {
            run.guidance.low = options.interval[0];
            run.guidance.high = options.interval[1];
        }
    }

    dpmrt_onnxruntime_params params = dpmrt_onnxruntime_default_params();
    params.threads = options.threads;
    const auto plan = dpmrt::Plan::load(options.plan);
    const auto network = made<Network>(
        [&](auto **into, dpmrt_error *text) { return dpmrt_onnxruntime_open(bundle.get(), &params, into, text); });
    const dpmrt_onnxruntime_use use{network.get(), conditions.get()};
    dpmrt_session_params session_params = dpmrt_session_default_params();
    session_params.guided = guided ? 1 : 0;
    session_params.guided_alone = guided && (!options.interval.empty() || options.schedule != DPMRT_SCHEDULE_CONSTANT) ? 1 : 0;
    dpmrt::Session session(plan, shape, dpmrt_onnxruntime_engine(&use), session_params);
    const auto started = std::chrono::steady_clock::now();
    const std::vector<float> samples = session.run(run);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - started;
    const std::array<std::size_t, 4> sizes{shape[0], shape[1], shape[2], shape[3]};
    picture::write_png(options.out, picture::lay_out(samples, sizes, info.data_range[0], info.data_range[1],
                                                     {options.grid, options.scale}));
    if (!options.quiet) {
        std::printf("%s: %zu %s, %zu network calls in %.2f s\n", options.out.c_str(), batch, batch == 1 ? "sample" : "samples",
                    plan.info().calls, took.count());
    }
}

}  // namespace

int main(int argc, char **argv) {
    try {
        const Options options = Parser(argc, argv).parse();
        if (options.help) {
            std::fputs(kHelp, stdout);
            return 0;
        }
        sample(options);
    } catch (const UsageError &error) {
        std::fprintf(stderr, "error: %s\n  fix:      dpmrt_sample --help shows what there is\n", error.what());
        return 2;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 1;
    }
    return 0;
}
