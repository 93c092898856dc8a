// Replays guided trajectories that Python wrote, and asks for guidance in ways that cannot be.
#include <cmath>
#include <limits>

#include "guided.h"

namespace {

dpmrt_error error;

struct Counted {
    std::size_t doubled = 0;
    std::size_t alone = 0;
};

dpmrt_status run(void *user, void *bound, std::size_t, double t, std::size_t output, dpmrt_error *) {
    const auto *binding = static_cast<const dpmrt_binding *>(bound);
    auto *counted = static_cast<Counted *>(user);
    ++(binding->guided != 0 ? counted->doubled : counted->alone);
    if (binding->dtype == DPMRT_FLOAT32) {
        network::fill_conditioned<float>(*binding, t, output);
    } else {
        network::fill_conditioned<double>(*binding, t, output);
    }
    return DPMRT_OK;
}

struct Session {
    dpmrt_session *session = nullptr;
    Counted counted;

    Session(const Case &one, bool guided, bool alone) {
        dpmrt_plan *plan = plan_of(one);
        dpmrt_session_params params = one.params();
        params.guided = guided ? 1 : 0;
        params.guided_alone = alone ? 1 : 0;
        const dpmrt_engine engine{&counted, nullptr, run, nullptr};
        require_ok(dpmrt_session_create(plan, &engine, &params, &session, &error), error);
        dpmrt_plan_free(plan);
    }
    Session(const Session &) = delete;
    Session &operator=(const Session &) = delete;
    ~Session() { dpmrt_session_free(session); }
};

bool replay(const Guided &guided, bool alone) {
    const Case &one = guided.one;
    Session session(one, true, alone);
    dpmrt_run_params run = dpmrt_run_default_params();
    const auto x_T = one.typed(one.x_T);
    Recorded recorded{&one};
    run.x_T = x_T.data();
    run.noise = Recorded::give;
    run.noise_user = &recorded;
    run.guidance = guided.guidance;
    std::vector<std::uint8_t> out(x_T.size());
    require_ok(dpmrt_session_run(session.session, &run, out.data(), &error), error);
    REQUIRE(session.counted.alone == (alone ? guided.alone : 0));
    const std::vector<double> got = one.wide(out);
    const double apart = distance(got, one.expected);
    const double limit = one.dtype == DPMRT_FLOAT64 ? 1e-12 : 2e-6;
    std::printf("%-44s %-8s %s %.1e\n", one.name.c_str(), alone ? "alone" : "doubled", apart <= limit ? "ok " : "OFF", apart);
    if (apart <= limit) return true;
    for (std::size_t k = 0; k < std::min<std::size_t>(8, got.size()); ++k) {
        std::printf("    [%zu] here %.9g, Python %.9g\n", k, got[k], one.expected[k]);
    }
    return false;
}

bool says(const char *text) {
    if (std::strstr(error.text, text) != nullptr) return true;
    std::fprintf(stderr, "expected \"%s\" in: %s\n", text, error.text);
    return false;
}

void refuse(const Case &one) {
    Session guided(one, true, false), plain(one, false, false);
    std::vector<std::uint8_t> out(one.typed(one.x_T).size(), 7);
    const auto asked = [&](const Session &session, auto change) {
        dpmrt_run_params run = dpmrt_run_default_params();
        change(run.guidance);
        const dpmrt_status status = dpmrt_session_run(session.session, &run, out.data(), &error);
        REQUIRE(std::all_of(out.begin(), out.end(), [](std::uint8_t byte) { return byte == 7; }));
        return status == DPMRT_ERROR_ARGUMENT;
    };
    const double none = std::numeric_limits<double>::quiet_NaN();
    const double many[64] = {};
    REQUIRE(asked(plain, [](dpmrt_guidance &g) { g.scale = 2; }) && says("a session that was made without it"));
    REQUIRE(asked(guided, [&](dpmrt_guidance &g) { g.scale = none; }) && says("guidance is not a scale"));
    REQUIRE(asked(guided, [](dpmrt_guidance &g) { g.rescale = 1.5; }) && says("guidance rescale is out of range"));
    REQUIRE(asked(guided, [&](dpmrt_guidance &g) { g.rescale = none; }) && says("got:      nan"));
    REQUIRE(asked(guided, [](dpmrt_guidance &g) { g.low = 2, g.high = 1; }) && says("guidance has no such interval"));
    REQUIRE(asked(guided, [](dpmrt_guidance &g) { g.unit = 9; }) && says("guidance goes by no such unit"));
    REQUIRE(asked(guided, [](dpmrt_guidance &g) { g.schedule = -1; }) && says("guidance has no such schedule"));
    REQUIRE(asked(guided, [&](dpmrt_guidance &g) { g.scales = many, g.scale_count = 64; }) && says("one scale of guidance for each"));
    REQUIRE(asked(guided, [&](dpmrt_guidance &g) { g.table = many, g.table_calls = 3; }) && says("another number of network calls"));
    REQUIRE(asked(guided, [&](dpmrt_guidance &g) { g.table = many, g.schedule = DPMRT_SCHEDULE_LINEAR; }) && says("one of them"));
    dpmrt_plan *plan = plan_of(one);
    dpmrt_plan_info info;
    require_ok(dpmrt_plan_describe(plan, &info, &error), error);
    REQUIRE(asked(guided, [&](dpmrt_guidance &g) { g.table = many, g.table_calls = info.calls; }) && says("no table of scales"));
    dpmrt_session_params params = one.params();
    params.guided_alone = 1;
    dpmrt_session *session = nullptr;
    const dpmrt_engine engine = network::engine();
    REQUIRE(dpmrt_session_create(plan, &engine, &params, &session, &error) == DPMRT_ERROR_ARGUMENT && says("there is no other"));
    dpmrt_plan_free(plan);
}

// An engine that takes one of the bindings and not the other; what was bound is unbound.
void half_bound(const Case &one) {
    static int bound = 0;
    const dpmrt_engine engine{nullptr,
                              [](void *, const dpmrt_binding *binding, void **, dpmrt_error *) {
                                  if (binding->guided == 0) return DPMRT_ERROR_SHAPE;
                                  ++bound;
                                  return DPMRT_OK;
                              },
                              run, [](void *, void *) { --bound; }};
    dpmrt_session_params params = one.params();
    params.guided = params.guided_alone = 1;
    dpmrt_plan *plan = plan_of(one);
    dpmrt_session *session = nullptr;
    REQUIRE(dpmrt_session_create(plan, &engine, &params, &session, &error) == DPMRT_ERROR_SHAPE && says("could not be bound"));
    REQUIRE(session == nullptr && bound == 0);
    params.guided_alone = 0;
    require_ok(dpmrt_session_create(plan, &engine, &params, &session, &error), error);
    REQUIRE(bound == 1);
    dpmrt_session_free(session);
    REQUIRE(bound == 0);
    dpmrt_plan_free(plan);
}

}  // namespace

int main(int argc, char **argv) {
    REQUIRE(argc == 2);
    bool all = true;
    for (const auto &path : files_of(argv[1], ".guided")) {
        const Guided guided(path);
        all = replay(guided, false) && all;
        all = replay(guided, true) && all;
        refuse(guided.one);
        half_bound(guided.one);
    }
    return all ? 0 : 1;
}
