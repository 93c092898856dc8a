// Eight threads with sessions of their own over one plan and one engine give what one gives; one session refuses two.
#include <atomic>
#include <thread>

#include "cases.h"
#include "network.h"

namespace {

std::vector<std::uint8_t> sample(const dpmrt_plan *plan, const Case &one, std::uint64_t seed) {
    static const dpmrt_engine engine = network::engine();
    dpmrt_error error;
    dpmrt_session *session = nullptr;
    const dpmrt_session_params params = one.params();
    require_ok(dpmrt_session_create(plan, &engine, &params, &session, &error), error);
    std::vector<std::uint8_t> out(one.typed(one.x_T).size());
    dpmrt_run_params run = dpmrt_run_default_params();
    run.seed = seed;
    for (int again = 0; again < 3; ++again) require_ok(dpmrt_session_run(session, &run, out.data(), &error), error);
    dpmrt_session_free(session);
    return out;
}

void share(const Case &one) {
    constexpr std::uint64_t count = 8;
    dpmrt_plan *plan = plan_of(one);
    std::vector<std::vector<std::uint8_t>> alone, together(count);
    for (std::uint64_t seed = 0; seed < count; ++seed) alone.push_back(sample(plan, one, seed));
    std::vector<std::thread> threads;
    for (std::uint64_t seed = 0; seed < count; ++seed) {
        threads.emplace_back([&, seed] { together[seed] = sample(plan, one, seed); });
    }
    for (std::thread &thread : threads) thread.join();
    dpmrt_plan_free(plan);
    REQUIRE(alone == together);
    REQUIRE(alone[0] != alone[1]);
}

struct Gate {
    std::atomic<bool> entered{false};
    std::atomic<bool> open{false};

    static dpmrt_status run(void *user, void *bound, std::size_t call, double t, std::size_t output, dpmrt_error *error) {
        auto *gate = static_cast<Gate *>(user);
        gate->entered = true;
        while (!gate->open) std::this_thread::yield();
        return network::run(nullptr, bound, call, t, output, error);
    }
};

void refuse_a_second(const Case &one) {
    Gate gate;
    const dpmrt_engine engine{&gate, nullptr, Gate::run, nullptr};
    dpmrt_error error;
    dpmrt_plan *plan = plan_of(one);
    dpmrt_session *session = nullptr;
    const dpmrt_session_params params = one.params();
    require_ok(dpmrt_session_create(plan, &engine, &params, &session, &error), error);
    dpmrt_plan_free(plan);
    const dpmrt_run_params run = dpmrt_run_default_params();
    std::vector<std::uint8_t> out(one.typed(one.x_T).size()), other(out.size());
    dpmrt_error first;
    dpmrt_status status = DPMRT_ERROR_INTERNAL;
    std::thread thread([&] { status = dpmrt_session_run(session, &run, out.data(), &first); });
    while (!gate.entered) std::this_thread::yield();
    REQUIRE(dpmrt_session_run(session, &run, other.data(), &error) == DPMRT_ERROR_BUSY);
    REQUIRE(dpmrt_session_close(session, &error) == DPMRT_ERROR_BUSY);
    gate.open = true;
    thread.join();
    require_ok(status, first);
    require_ok(dpmrt_session_run(session, &run, other.data(), &error), error);
    REQUIRE(out == other);
    dpmrt_session_free(session);
}

}  // namespace

int main(int argc, char **argv) {
    REQUIRE(argc == 2);
    const auto cases = read_cases(argv[1]);
    for (const Case &one : cases) share(one);
    refuse_a_second(cases.front());
    return 0;
}
