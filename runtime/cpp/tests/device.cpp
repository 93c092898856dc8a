// Replays Python's trajectories through the executor of CUDA devices, on a stand-in for CUDA that runs on the host.
#include <string>

#include "../src/device/executor.h"
#include "../src/failure.h"
#include "../src/plan.h"
#include "cases.h"
#include "cuda/fake.h"
#include "network.h"

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
            network::run(nullptr, const_cast<dpmrt_binding *>(&there), call, binding_.times[call], output, nullptr);
            if (call == spoils_at) std::memset(binding_.outputs[output], 0xff, sizeof(double));
        });
    }

    std::size_t fails_at = SIZE_MAX;
    std::size_t spoils_at = SIZE_MAX;

private:
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
        return there;
    }

    device::Binding binding_{};
};

std::shared_ptr<const Plan> plan_for(const Case &one) {
    return std::make_shared<const Plan>(Plan::parse(one.plan.data(), one.plan.size(), "the step file"));
}

bool has_kernels(const Plan &plan) {
    for (const auto &one : plan.instructions) {
        if (std::holds_alternative<dpmrt_core::DynamicThreshold>(one) || std::holds_alternative<dpmrt_core::Langevin>(one)) {
            return false;
        }
    }
    return true;
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
    const double apart = distance(one.wide(plain), one.expected);
    const double limit = one.dtype == DPMRT_FLOAT64 ? 1e-12 : 2e-6;
    std::printf("%-44s %s %.1e\n", one.name.c_str(), apart <= limit ? "ok " : "OFF", apart);
    return apart <= limit;
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
}

}  // namespace

int main(int argc, char **argv) {
    REQUIRE(argc == 2);
    bool all = true;
    for (const Case &one : read_cases(argv[1])) {
        Curve network;
        if (has_kernels(*plan_for(one))) {
            all = replay(one) && all;
            if (one.noise.empty()) fail(one);
        } else {
            REQUIRE(contains(refusal([&] { device::Executor::make(plan_for(one), network, one.params()); }),
                             "an instruction that the device's executor does not have"));
        }
    }
    REQUIRE(fake::counts().allocated == 0);
    return all ? 0 : 1;
}
