// What a step costs beside the network: the plan's own passes, against one read and write of the same arrays.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "dpmrt/dpmrt.hpp"

namespace {

using Clock = std::chrono::steady_clock;

double median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
    return values[values.size() / 2];
}

template <class Work>
double time(Work work) {
    std::vector<double> seconds;
    for (int k = 0; k < 41; ++k) {
        const auto start = Clock::now();
        work();
        seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    }
    return median(seconds);
}

// One pass that reads `read` arrays and writes `written`, as plainly as a compiler likes it.
double pass(std::size_t size, std::size_t read, std::size_t written) {
    std::vector<std::vector<float>> from(read, std::vector<float>(size, 1.0F)), to(written, std::vector<float>(size));
    return time([&] {
        for (std::size_t w = 0; w < written; ++w) {
            float *out = to[w].data();
            const float *a = from[w % read].data();
            const float *b = from[read - 1].data();
            for (std::size_t k = 0; k < size; ++k) out[k] = 0.5F * a[k] + 0.25F * b[k];
        }
    });
}

}  // namespace

int main(int argc, char **argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: %s PLAN.steps\n", argv[0]);
        return 2;
    }
    try {
        const auto plan = dpmrt::Plan::load(argv[1]);
        std::printf("%-14s %14s %16s %8s\n", "state", "a step", "read and write", "ratio");
        const std::vector<std::vector<std::size_t>> shapes{{1, 4, 64, 64}, {4, 4, 128, 128}};
        for (const auto &shape : shapes) {
            // The network leaves the outputs as they are, so that nothing but the plan's passes is timed.
            dpmrt::Session session(plan, shape, [](const dpmrt::Call &) {});
            std::vector<float> x(session.size(), 0.5F), out(session.size());
            dpmrt_run_params params = dpmrt_run_default_params();
            params.x_T = x.data();
            const double whole = time([&] { session.run(params, out.data()); });
            const double step = whole / static_cast<double>(plan.info().calls) * 1e6;
            // A step of a multistep solver reads the state and two outputs, and writes the state and one.
            const double bare = pass(session.size(), 3, 2) * 1e6;
            std::printf("%zux%zux%zux%-6zu %11.2f us %13.2f us %8.2f\n", shape[0], shape[1], shape[2], shape[3], step, bare,
                        step / bare);
        }
    } catch (const dpmrt::Error &error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 1;
    }
    return 0;
}
