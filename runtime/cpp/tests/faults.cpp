// What must end in a status and a text: bad files, bad arguments, callbacks that fail, sessions after their end.
#include <cmath>
#include <limits>
#include <string>

#include "cases.h"
#include "network.h"

namespace {

dpmrt_error error;

bool says(const char *text) {
    if (std::strstr(error.text, text) != nullptr) return true;
    std::fprintf(stderr, "expected \"%s\" in: %s\n", text, error.text);
    return false;
}

struct Open {
    dpmrt_plan *plan = nullptr;
    dpmrt_session *session = nullptr;
    std::vector<std::uint8_t> out;

    explicit Open(const Case &one, const dpmrt_engine &engine) : plan(plan_of(one)), out(one.typed(one.x_T).size(), 7) {
        const dpmrt_session_params params = one.params();
        require_ok(dpmrt_session_create(plan, &engine, &params, &session, &error), error);
    }
    Open(const Open &) = delete;
    Open &operator=(const Open &) = delete;
    ~Open() {
        dpmrt_session_free(session);
        dpmrt_plan_free(plan);
    }

    dpmrt_status run(const dpmrt_run_params &params) { return dpmrt_session_run(session, &params, out.data(), &error); }
    bool untouched() const { return std::all_of(out.begin(), out.end(), [](std::uint8_t byte) { return byte == 7; }); }
};

void files(const Case &one) {
    dpmrt_plan *plan = nullptr;
    const auto read = [&](const std::vector<std::uint8_t> &bytes) {
        const dpmrt_status status = dpmrt_plan_read(bytes.data(), bytes.size(), &plan, &error);
        REQUIRE(plan == nullptr);
        return status;
    };
    for (std::size_t size = 1; size < one.plan.size(); size += 1 + size / 7) {
        REQUIRE(read({one.plan.begin(), one.plan.begin() + static_cast<std::ptrdiff_t>(size)}) == DPMRT_ERROR_FORMAT);
    }
    REQUIRE(says("is truncated or was altered"));
    for (std::size_t at = 0; at < one.plan.size(); at += 37) {
        auto altered = one.plan;
        altered[at] ^= 0x10U;
        const dpmrt_status status = read(altered);
        REQUIRE(status == DPMRT_ERROR_FORMAT || status == DPMRT_ERROR_VERSION);
    }
    auto future = one.plan;
    future[8] = 200;
    REQUIRE(read(future) == DPMRT_ERROR_VERSION && says("has a version that is not known here"));
    REQUIRE(dpmrt_plan_load("/nowhere/plan.steps", &plan, &error) == DPMRT_ERROR_FILE && says("/nowhere/plan.steps"));
}

void arguments(const Case &one) {
    dpmrt_plan *plan = plan_of(one);
    dpmrt_session *session = nullptr;
    const dpmrt_engine engine = network::engine();
    dpmrt_session_params params = one.params();
    REQUIRE(dpmrt_plan_load(nullptr, &plan, &error) == DPMRT_ERROR_ARGUMENT && says("path is missing"));
    REQUIRE(dpmrt_plan_read(nullptr, 3, &plan, nullptr) == DPMRT_ERROR_ARGUMENT);
    REQUIRE(dpmrt_plan_read("", 0, nullptr, &error) == DPMRT_ERROR_ARGUMENT);
    REQUIRE(dpmrt_plan_describe(plan, nullptr, &error) == DPMRT_ERROR_ARGUMENT);
    REQUIRE(dpmrt_plan_times(plan, nullptr, 0, &error) == DPMRT_ERROR_ARGUMENT && says("another number of times"));
    REQUIRE(dpmrt_session_create(nullptr, &engine, &params, &session, &error) == DPMRT_ERROR_ARGUMENT);
    REQUIRE(dpmrt_session_create(plan, nullptr, &params, &session, &error) == DPMRT_ERROR_ARGUMENT);
    REQUIRE(dpmrt_session_create(plan, &engine, nullptr, &session, &error) == DPMRT_ERROR_ARGUMENT);
    REQUIRE(dpmrt_session_create(plan, &engine, &params, nullptr, &error) == DPMRT_ERROR_ARGUMENT);
    const dpmrt_engine empty{};
    REQUIRE(dpmrt_session_create(plan, &empty, &params, &session, &error) == DPMRT_ERROR_ARGUMENT && says("no run callback"));
    params.rank = 1;
    REQUIRE(dpmrt_session_create(plan, &engine, &params, &session, &error) == DPMRT_ERROR_SHAPE && says("rank 1"));
    params.rank = 99;
    REQUIRE(dpmrt_session_create(plan, &engine, &params, &session, &error) == DPMRT_ERROR_SHAPE);
    params = one.params();
    params.shape[1] = 0;
    REQUIRE(dpmrt_session_create(plan, &engine, &params, &session, &error) == DPMRT_ERROR_SHAPE);
    params.shape[0] = params.shape[1] = std::numeric_limits<std::size_t>::max() / 2;
    REQUIRE(dpmrt_session_create(plan, &engine, &params, &session, &error) == DPMRT_ERROR_SHAPE);
    params = one.params();
    params.dtype = 9;
    REQUIRE(dpmrt_session_create(plan, &engine, &params, &session, &error) == DPMRT_ERROR_ARGUMENT && says("float32 or float64"));
    params = one.params();
    params.allocator.allocate = [](void *, std::size_t, std::size_t) -> void * { return nullptr; };
    REQUIRE(dpmrt_session_create(plan, &engine, &params, &session, &error) == DPMRT_ERROR_ARGUMENT && says("no release"));
    REQUIRE(session == nullptr);
    const dpmrt_run_params run = dpmrt_run_default_params();
    REQUIRE(dpmrt_session_run(nullptr, &run, &params, &error) == DPMRT_ERROR_ARGUMENT);
    REQUIRE(dpmrt_session_close(nullptr, &error) == DPMRT_ERROR_ARGUMENT);
    dpmrt_session_free(nullptr);
    dpmrt_plan_free(nullptr);
    dpmrt_noise_free(nullptr);
    dpmrt_plan_free(plan);
}

void callbacks(const Case &one) {
    const dpmrt_engine failing{nullptr, nullptr,
                               [](void *, void *bound, std::size_t call, double t, std::size_t output, dpmrt_error *text) {
                                   if (call == 0) return network::run(nullptr, bound, call, t, output, text);
                                   std::strcpy(text->text, "the device is gone");
                                   return DPMRT_ERROR_ENGINE;
                               },
                               nullptr};
    dpmrt_run_params run = dpmrt_run_default_params();
    {
        Open open(one, failing);
        REQUIRE(open.run(run) == DPMRT_ERROR_ENGINE && says("the device is gone") && says("call 2 of"));
        REQUIRE(open.untouched());
    }
    const dpmrt_engine unbindable{nullptr,
                                  [](void *, const dpmrt_binding *, void **, dpmrt_error *) { return DPMRT_ERROR_MEMORY; },
                                  network::run, nullptr};
    dpmrt_session *session = nullptr;
    dpmrt_plan *plan = plan_of(one);
    const dpmrt_session_params params = one.params();
    REQUIRE(dpmrt_session_create(plan, &unbindable, &params, &session, &error) == DPMRT_ERROR_MEMORY);
    REQUIRE(says("could not be bound") && says("DPMRT_ERROR_MEMORY"));
    dpmrt_plan_free(plan);

    Open open(one, network::engine());
    run.progress = [](void *user, const dpmrt_progress *progress) {
        *static_cast<std::size_t *>(user) = progress->call;
        return progress->call == 2 ? 1 : 0;
    };
    std::size_t seen = 0;
    run.progress_user = &seen;
    REQUIRE(open.run(run) == DPMRT_CANCELLED && says("cancelled by its callback") && says("after call 2 of"));
    REQUIRE(seen == 2 && open.untouched());
    run = dpmrt_run_default_params();
    const double nothing = std::nan("");
    std::vector<double> x_T(one.size(), 0.5);
    x_T[1] = nothing;
    const auto bad = one.typed(x_T);
    run.x_T = bad.data();
    REQUIRE(open.run(run) == DPMRT_ERROR_NONFINITE && says("at position 1") && open.untouched());
    run.start = bad.data();
    REQUIRE(open.run(run) == DPMRT_ERROR_ARGUMENT && says("x_T and start"));
    run = dpmrt_run_default_params();
    REQUIRE(open.run(run) == DPMRT_OK);
    const auto after = open.out;
    REQUIRE(open.run(run) == DPMRT_OK && open.out == after);
    REQUIRE(dpmrt_session_close(open.session, &error) == DPMRT_OK);
    REQUIRE(dpmrt_session_close(open.session, &error) == DPMRT_OK);
    REQUIRE(open.run(run) == DPMRT_ERROR_CLOSED && says("the session was closed"));
}

void noise(const Case &one) {
    Open open(one, network::engine());
    dpmrt_run_params run = dpmrt_run_default_params();
    run.noise = [](void *, void *, std::size_t, double, double, dpmrt_error *text) {
        std::strcpy(text->text, "no entropy");
        return DPMRT_ERROR_NOISE;
    };
    REQUIRE(open.run(run) == DPMRT_ERROR_NOISE && says("no entropy") && open.untouched());
}

// A score of zeros sets no step of a Langevin corrector.
void no_score(const Case &one) {
    const dpmrt_engine silent{nullptr, nullptr,
                              [](void *, void *bound, std::size_t, double, std::size_t output, dpmrt_error *) {
                                  const auto *binding = static_cast<const dpmrt_binding *>(bound);
                                  std::size_t bytes = binding->dtype == DPMRT_FLOAT32 ? 4 : 8;
                                  for (std::size_t k = 0; k < binding->rank; ++k) bytes *= binding->shape[k];
                                  std::memset(binding->outputs[output], 0, bytes);
                                  return DPMRT_OK;
                              },
                              nullptr};
    Open open(one, silent);
    REQUIRE(open.run(dpmrt_run_default_params()) == DPMRT_ERROR_NONFINITE && says("by the norm of the score") && says("call 1 of"));
    REQUIRE(open.untouched());
}

void not_finite(const Case &one) {
    const dpmrt_engine spoiling{nullptr, nullptr,
                                [](void *, void *bound, std::size_t call, double t, std::size_t output, dpmrt_error *text) {
                                    const dpmrt_status status = network::run(nullptr, bound, call, t, output, text);
                                    const auto *binding = static_cast<const dpmrt_binding *>(bound);
                                    const float none = std::nanf("");
                                    if (call == 1) std::memset(binding->outputs[output], 0xff, sizeof none);
                                    return status;
                                },
                                nullptr};
    Open open(one, spoiling);
    const dpmrt_run_params run = dpmrt_run_default_params();
    REQUIRE(open.run(run) == DPMRT_ERROR_NONFINITE && says("the network returned NaN or infinity") && says("call 2 of"));
    REQUIRE(open.untouched());
}

}  // namespace

int main(int argc, char **argv) {
    REQUIRE(argc == 2);
    bool stochastic = false;
    for (const Case &one : read_cases(argv[1])) {
        files(one);
        arguments(one);
        callbacks(one);
        if (one.name.rfind("langevin", 0) == 0) no_score(one);
        if (!one.noise.empty()) {
            noise(one);
            stochastic = true;
        } else if (one.dtype == DPMRT_FLOAT32) {
            not_finite(one);
        }
    }
    REQUIRE(stochastic);
    REQUIRE(std::string(dpmrt_status_name(DPMRT_ERROR_SHAPE)) == "DPMRT_ERROR_SHAPE");
    return 0;
}
