// Replays the trajectories that Python wrote, and shows both side by side where they differ.
#include "cases.h"
#include "network.h"

namespace {

bool replay(const Case &one, bool seeded) {
    dpmrt_error error;
    dpmrt_plan *plan = plan_of(one);
    dpmrt_session *session = nullptr;
    const dpmrt_engine engine = network::engine();
    const dpmrt_session_params params = one.params();
    require_ok(dpmrt_session_create(plan, &engine, &params, &session, &error), error);
    dpmrt_plan_free(plan);
    dpmrt_run_params run = dpmrt_run_default_params();
    const auto x_T = one.typed(one.x_T);
    Recorded recorded{&one};
    if (seeded) {
        run.seed = one.seed;
    } else {
        run.x_T = x_T.data();
        run.noise = Recorded::give;
        run.noise_user = &recorded;
    }
    std::vector<std::uint8_t> out(x_T.size());
    // The second run must not remember the first.
    for (int again = 0; again < 2; ++again) {
        recorded.draw = 0;
        require_ok(dpmrt_session_run(session, &run, out.data(), &error), error);
    }
    dpmrt_session_free(session);
    const std::vector<double> got = one.wide(out);
    const double apart = distance(got, one.expected);
    // The seed's noise agrees with NumPy's up to the last digit of logarithm and cosine.
    const double limit = one.dtype == DPMRT_FLOAT64 ? (seeded ? 2e-6 : 1e-12) : (seeded ? 1e-5 : 2e-6);
    std::printf("%-44s %-8s %s %.1e\n", one.name.c_str(), seeded ? "seed" : "recorded", apart <= limit ? "ok " : "OFF", apart);
    if (apart <= limit) return true;
    for (std::size_t k = 0; k < std::min<std::size_t>(8, got.size()); ++k) {
        std::printf("    [%zu] here %.9g, Python %.9g\n", k, got[k], one.expected[k]);
    }
    return false;
}

}  // namespace

int main(int argc, char **argv) {
    REQUIRE(argc == 2);
    bool all = true;
    for (const Case &one : read_cases(argv[1])) {
        all = replay(one, false) && all;
        all = replay(one, true) && all;
    }
    return all ? 0 : 1;
}
