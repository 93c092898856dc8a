// Replays Python's trajectories, guided ones among them, through the executor of CUDA devices, on a stand-in for CUDA that runs on the host.
#include <string>

#include "../src/device/executor.h"
#include "../src/failure.h"
#include "../src/plan.h"
#include "cuda/fake.h"
#include "guided.h"

namespace {

using dpmrt_core::Failure;
using dpmrt_core::Plan;
namespace device = dpmrt_core::device;

// The network of the tests, in the order of the stream.
class Curve final : public device::Network {
public:
    void bind(const device::Binding &binding) override { binding_ = binding; }

    void enqueue(std::size_t call, std::size_t output) override {
        if (call == fails_at) throw Failure(DPMRT_ERROR_ENGINE, "the network failed");
        fake::push(binding_.stream, [this, call, output] {
            const dpmrt_binding there = host();
            const double t = binding_.times[call];
            if (!guided) {
                network::run(nullptr, const_cast<dpmrt_binding *>(&there), call, t, output, nullptr);
            } else if (there.dtype == DPMRT_FLOAT32) {
                network::fill_conditioned<float>(there, t, output);
            } else {
                network::fill_conditioned<double>(there, t, output);
            }
            if (silent) std::memset(binding_.outputs[output], 0, bytes());
            if (call == spoils_at) std::memset(binding_.outputs[output], 0xff, sizeof(double));
        });
    }

    std::size_t fails_at = SIZE_MAX;
    std::size_t spoils_at = SIZE_MAX;
    bool guided = false;
    bool silent = false;

private:
    std::size_t bytes() const {
        std::size_t made = binding_.dtype == DPMRT_FLOAT32 ? sizeof(float) : sizeof(double);
        for (const std::size_t side : binding_.shape) made *= side;
        return made;
    }

    dpmrt_binding host() const {
        dpmrt_binding there{};
        there.dtype = binding_.dtype;
        there.rank = binding_.shape.size();
        there.shape = binding_.shape.data();
        there.parts = binding_.parts;
        there.input = binding_.input;
        there.outputs = binding_.outputs.data();
        there.output_count = binding_.outputs.size();
        there.times = binding_.times.data();
        there.calls = binding_.times.size();
        there.guided = guided ? 1 : 0;
        return there;
    }

    device::Binding binding_{};
};

std::shared_ptr<const Plan> plan_for(const Case &one) {
    return std::make_shared<const Plan>(Plan::parse(one.plan.data(), one.plan.size(), "the step file"));
}

bool measures(const Plan &plan) {
    return std::any_of(plan.instructions.begin(), plan.instructions.end(),
                       [](const auto &one) { return std::holds_alternative<dpmrt_core::Langevin>(one); });
}

template <class Work>
std::string refusal(Work work) {
    try {
        work();
    } catch (const Failure &failure) {
        return failure.what();
    }
    return "nothing was refused";
}

bool contains(const std::string &text, const char *part) {
    if (text.find(part) != std::string::npos) return true;
    std::fprintf(stderr, "expected \"%s\" in: %s\n", part, text.c_str());
    return false;
}

struct Asked {
    explicit Asked(const Case &given) : one(given), x_T(given.typed(given.x_T)), recorded{&given}, out(x_T.size()) {
        params.x_T = x_T.data();
        params.noise = Recorded::give;
        params.noise_user = &recorded;
    }

    std::vector<std::uint8_t> run(device::Executor &executor) {
        recorded.draw = 0;
        std::fill(out.begin(), out.end(), std::uint8_t{0});
        executor.run(params, out.data());
        return out;
    }

    const Case &one;
    std::vector<std::uint8_t> x_T;
    Recorded recorded;
    std::vector<std::uint8_t> out;
    dpmrt_run_params params = dpmrt_run_default_params();
};

bool near(const Case &one, const std::vector<std::uint8_t> &got, const char *how) {
    const double apart = distance(one.wide(got), one.expected);
    const double limit = one.dtype == DPMRT_FLOAT64 ? 1e-12 : 2e-6;
    std::printf("%-44s %-8s %s %.1e\n", one.name.c_str(), how, apart <= limit ? "ok " : "OFF", apart);
    return apart <= limit;
}

bool replay(const Case &one) {
    Curve network;
    const auto executor = device::Executor::make(plan_for(one), network, one.params());
    Asked asked(one);
    const auto plain = asked.run(*executor);
    REQUIRE(!executor->captured());
    const std::size_t before = fake::counts().replays, waits = fake::counts().waits;
    const auto recorded = asked.run(*executor);
    REQUIRE(executor->captured() && fake::counts().replays == before + 1);
    const auto replayed = asked.run(*executor);
    REQUIRE(fake::counts().replays == before + 2);
    // One wait for the flags, one for the result, and one before the capture: none for each row.
    REQUIRE(fake::counts().waits - waits <= 5);
    REQUIRE(plain == recorded && plain == replayed);
    std::size_t told = 0;
    asked.params.progress = [](void *user, const dpmrt_progress *progress) {
        REQUIRE(progress->call == ++*static_cast<std::size_t *>(user));
        return 0;
    };
    asked.params.progress_user = &told;
    REQUIRE(asked.run(*executor) == plain && told > 0);
    return near(one, plain, "");
}

dpmrt_session_params guided_params(const Case &one) {
    dpmrt_session_params params = one.params();
    params.guided = 1;
    return params;
}

// One session serves every guidance: a graph that was captured with other scales, and what a graph does not hold.
bool replay(const Guided &guided) {
    const Case &one = guided.one;
    Curve network;
    network.guided = true;
    const auto executor = device::Executor::make(plan_for(one), network, guided_params(one));
    Asked asked(one);
    asked.params.guidance = guided.guidance;
    const auto plain = asked.run(*executor);
    REQUIRE(asked.run(*executor) == plain && executor->captured());
    REQUIRE(asked.run(*executor) == plain);
    asked.params.guidance = dpmrt_run_default_params().guidance;
    asked.params.guidance.rescale = guided.guidance.rescale;
    asked.params.guidance.scale = 2;
    const std::size_t before = fake::counts().replays;
    const auto other = asked.run(*executor);
    REQUIRE(other != plain && executor->captured() && fake::counts().replays == before + 1);
    // Another rescale is another number, but with and without one the kernels are not the same.
    asked.params.guidance.rescale = guided.guidance.rescale != 0 ? 0 : 0.5;
    const auto rescaled = asked.run(*executor);
    REQUIRE(rescaled != other && !executor->captured());
    REQUIRE(asked.run(*executor) == rescaled && executor->captured());
    asked.params.guidance = guided.guidance;
    for (int again = 0; again < 3; ++again) REQUIRE(asked.run(*executor) == plain);
    return near(one, plain, "guided");
}

void refuse(const Guided &guided) {
    const Case &one = guided.one;
    Curve network;
    network.guided = true;
    const auto executor = device::Executor::make(plan_for(one), network, guided_params(one));
    Asked asked(one);
    asked.params.guidance.rescale = 2;
    REQUIRE(contains(refusal([&] { asked.run(*executor); }), "guidance rescale is out of range"));
    asked.params.guidance = guided.guidance;
    const auto good = asked.run(*executor);
    network.spoils_at = 0;
    REQUIRE(contains(refusal([&] { asked.run(*executor); }), "the network returned NaN or infinity\n  got:      call 1 of"));
    network.spoils_at = SIZE_MAX;
    REQUIRE(asked.run(*executor) == good);
    Curve other;
    const auto plain = device::Executor::make(plan_for(one), other, one.params());
    asked.params.guidance.scale = 3;
    REQUIRE(contains(refusal([&] { asked.run(*plain); }), "a session that was made without it"));
    dpmrt_session_params alone = guided_params(one);
    alone.guided_alone = 1;
    REQUIRE(contains(refusal([&] { device::Executor::make(plan_for(one), other, alone); }), "always runs on both halves"));
}

void fail(const Case &one) {
    Curve network;
    const auto executor = device::Executor::make(plan_for(one), network, one.params());
    Asked asked(one);
    const auto good = asked.run(*executor);
    network.spoils_at = 2;
    REQUIRE(contains(refusal([&] { asked.run(*executor); }), "the network returned NaN or infinity\n  got:      call 3 of"));
    network.spoils_at = SIZE_MAX;
    // A failure is forgotten, and the run after it is a plain one.
    REQUIRE(asked.run(*executor) == good && !executor->captured());
    network.fails_at = 1;
    REQUIRE(contains(refusal([&] { asked.run(*executor); }), "the network failed"));
    network.fails_at = SIZE_MAX;
    fake::refuses_capture() = true;
    for (int again = 0; again < 3; ++again) REQUIRE(asked.run(*executor) == good && !executor->captured());
    fake::refuses_capture() = false;
    asked.params.progress = [](void *, const dpmrt_progress *progress) { return progress->call == 2 ? 1 : 0; };
    REQUIRE(contains(refusal([&] { asked.run(*executor); }), "after call 2 of"));
    dpmrt_session_params huge = one.params();
    huge.shape[0] = std::size_t{1} << 40U;
    Curve other;
    REQUIRE(contains(refusal([&] { device::Executor::make(plan_for(one), other, huge); }), "the device's memory is exhausted"));
    asked.params.progress = nullptr;
    REQUIRE(asked.run(*executor) == good);
    // What the application left is none of a run's.
    void *nothing = nullptr;
    REQUIRE(cudaMalloc(&nothing, std::size_t{1} << 40U) == cudaErrorMemoryAllocation);
    REQUIRE(asked.run(*executor) == good);
}

// A score of zeros sets no step, and is named before the NaN that comes of it.
void silence(const Case &one) {
    Curve network;
    const auto executor = device::Executor::make(plan_for(one), network, one.params());
    Asked asked(one);
    const auto good = asked.run(*executor);
    network.silent = true;
    REQUIRE(contains(refusal([&] { asked.run(*executor); }), "cannot set its step by the norm of the score"));
    network.silent = false;
    REQUIRE(asked.run(*executor) == good);
    asked.params.noise = [](void *, void *out, std::size_t count, double, double, dpmrt_error *) {
        std::memset(out, 0xff, count * sizeof(float));
        return DPMRT_OK;
    };
    REQUIRE(contains(refusal([&] { asked.run(*executor); }), "the noise source gave NaN or infinity"));
    asked.params.noise = Recorded::give;
    network.spoils_at = 1;
    REQUIRE(contains(refusal([&] { asked.run(*executor); }), "the network returned NaN or infinity\n  got:      call 2 of"));
}

}  // namespace

int main(int argc, char **argv) {
    REQUIRE(argc == 3);
    bool all = true;
    for (const Case &one : read_cases(argv[1])) {
        all = replay(one) && all;
        if (one.noise.empty()) fail(one);
        if (measures(*plan_for(one))) silence(one);
    }
    for (const auto &path : files_of(argv[2], ".guided")) {
        const Guided guided(path);
        all = replay(guided) && all;
        refuse(guided);
    }
    REQUIRE(fake::counts().allocated == 0);
    return all ? 0 : 1;
}
