// The smallest program there is: a plan, a network in one line, a sample.
#include <cstdio>

#include "dpmrt/dpmrt.hpp"

int main(int argc, char **argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: %s PLAN.steps\n", argv[0]);
        return 2;
    }
    try {
        const auto plan = dpmrt::Plan::load(argv[1]);
        // A network that takes all of the state for noise, whatever the time.
        dpmrt::Session session(plan, {1, 1, 4, 4}, [](const dpmrt::Call &call) {
            for (std::size_t k = 0; k < call.out_size; ++k) call.out[k] = call.x[k % call.x_size];
        });
        for (const float value : session.run(7)) std::printf("%g\n", static_cast<double>(value));
    } catch (const dpmrt::Error &error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 1;
    }
    return 0;
}
