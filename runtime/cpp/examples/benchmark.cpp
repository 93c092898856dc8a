// What a step costs beside the network, next to one pass that reads and writes the same arrays once.
//
// The network copies a constant, as the last thing that touched its output, and its time is taken off on both sides. A
// pass is what a compiler makes of a plain loop, and where the processor has AVX2 of the same loop with that allowed.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "dpmrt/dpmrt.hpp"

#if defined(__GNUC__) && defined(__x86_64__)
#define WIDE __attribute__((target("avx2")))
#define INLINE inline __attribute__((always_inline))
#else
#define WIDE
#define INLINE inline
#endif

namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

struct Constant {
    std::vector<float> values;
    double seconds = 0;

    void write(float *out) {
        const auto start = Clock::now();
        std::memcpy(out, values.data(), values.size() * sizeof(float));
        seconds += since(start);
    }
};

// Seconds a call of the plan, its own work alone. A whole run, so what begins and ends it is shared out.
double step_of(const dpmrt::Plan &plan, const std::vector<std::size_t> &shape, Constant &network, int repeats) {
    dpmrt::Session session(plan, shape, [&network](const dpmrt::Call &call) { network.write(call.out); });
    const std::vector<float> x(session.size(), 0.5F);
    std::vector<float> out(session.size());
    dpmrt_run_params params = dpmrt_run_default_params();
    params.x_T = x.data();
    double best = 1e9;
    for (int k = 0; k < repeats; ++k) {
        network.seconds = 0;
        const auto start = Clock::now();
        session.run(params, out.data());
        best = std::min(best, since(start) - network.seconds);
    }
    return best / static_cast<double>(plan.info().calls);
}

// Reads the state and every slot, writes the state, and the first slot where there is another to keep it for.
template <std::size_t... Slot>
INLINE void pass(float *__restrict state, float *__restrict first, float *const *slots, std::size_t size,
                 std::index_sequence<Slot...>) {
    const float *const others[] = {first, slots[Slot]...};
    for (std::size_t k = 0; k < size; ++k) {
        const float sum = ((state[k] + first[k]) + ... + others[1 + Slot][k]);
        state[k] = 0.25F * sum;
        if constexpr (sizeof...(Slot) > 0) first[k] = sum;
    }
}

using Pass = void (*)(float *, float *, float *const *, std::size_t);

template <std::size_t others>
void plain_pass(float *state, float *first, float *const *slots, std::size_t size) {
    pass(state, first, slots, size, std::make_index_sequence<others>{});
}

template <std::size_t others>
WIDE void wide_pass(float *state, float *first, float *const *slots, std::size_t size) {
    pass(state, first, slots, size, std::make_index_sequence<others>{});
}

Pass pass_over(std::size_t slots, bool wide) {
    switch (slots) {
        case 1: return wide ? wide_pass<0> : plain_pass<0>;
        case 2: return wide ? wide_pass<1> : plain_pass<1>;
        case 3: return wide ? wide_pass<2> : plain_pass<2>;
        default: return wide ? wide_pass<3> : plain_pass<3>;
    }
}

// Seconds of a pass; as many in a row as a run has steps, and the slots take turns at being the output.
double pass_of(std::size_t size, std::size_t slots, bool wide, Constant &network, std::size_t passes, int repeats) {
    constexpr std::size_t apart = 80;  // the executor keeps its rows so far apart from multiples of a power of two
    const std::size_t pitch = (size + 15) / 16 * 16 + apart;
    std::vector<float> memory((1 + slots) * pitch + 16, 0.5F);
    float *rows = memory.data();
    while (reinterpret_cast<std::uintptr_t>(rows) % 64 != 0) ++rows;
    const Pass work = pass_over(slots, wide);
    double best = 1e9;
    for (int k = 0; k < repeats; ++k) {
        network.seconds = 0;
        const auto start = Clock::now();
        for (std::size_t turn = 0; turn < passes; ++turn) {
            std::size_t others = 0;
            float *slot[8] = {};
            for (std::size_t j = 1; j < slots; ++j) slot[others++] = rows + (1 + (turn + j) % slots) * pitch;
            float *output = rows + (1 + turn % slots) * pitch;
            network.write(output);
            work(rows, output, slot, size);
        }
        best = std::min(best, since(start) - network.seconds);
    }
    return best / static_cast<double>(passes);
}

bool has_wide() {
#if defined(__GNUC__) && defined(__x86_64__)
    return __builtin_cpu_supports("avx2") != 0;
#else
    return false;
#endif
}

}  // namespace

int main(int argc, char **argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: %s PLAN.steps [REPEATS]\n", argv[0]);
        return 2;
    }
    const int repeats = std::max(4, argc > 2 ? std::atoi(argv[2]) : 400) / 4;
    try {
        const auto plan = dpmrt::Plan::load(argv[1]);
        const std::size_t slots = std::min<std::size_t>(std::max<std::size_t>(plan.info().slots, 1), 4);
        std::printf("a pass reads %zu arrays and writes %d; microseconds, the best of %d runs\n", 1 + slots,
                    slots > 1 ? 2 : 1, 4 * repeats);
        std::printf("%-14s %10s %10s %8s %12s %8s\n", "state", "a step", "a pass", "ratio", "an AVX2 pass", "ratio");
        const std::vector<std::vector<std::size_t>> shapes{{1, 4, 64, 64}, {4, 4, 128, 128}};
        for (const auto &shape : shapes) {
            const std::size_t size = shape[0] * shape[1] * shape[2] * shape[3];
            const std::size_t calls = plan.info().calls;
            Constant network{std::vector<float>(size, 0.01F)};
            double step = 1e9;
            double bare = 1e9;
            double wide = 1e9;
            // In turn, so that a slow moment of the machine meets all.
            for (int round = 0; round < 4; ++round) {
                step = std::min(step, step_of(plan, shape, network, repeats));
                bare = std::min(bare, pass_of(size, slots, false, network, calls, repeats));
                if (has_wide()) wide = std::min(wide, pass_of(size, slots, true, network, calls, repeats));
            }
            std::printf("%zux%zux%zux%-6zu %10.2f %10.2f %8.2f", shape[0], shape[1], shape[2], shape[3], step * 1e6,
                        bare * 1e6, step / bare);
            if (has_wide()) std::printf(" %12.2f %8.2f", wide * 1e6, step / wide);
            std::printf("\n");
        }
    } catch (const dpmrt::Error &error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 1;
    }
    return 0;
}
