// The C functions: arguments checked, exceptions turned into a status and a text.
#include <atomic>
#include <memory>

#include "dpmrt/dpmrt.h"
#include "executor.h"
#include "failure.h"
#include "guidance.h"
#include "guard.h"
#include "handles.h"
#include "noise.h"

struct dpmrt_session {
    std::unique_ptr<dpmrt_core::Executor> executor;
    std::atomic<bool> busy{false};
    void (*log)(void *, dpmrt_log_level, const char *) = nullptr;
    void *log_user = nullptr;
};

struct dpmrt_noise {
    explicit dpmrt_noise(std::uint64_t seed) : stream(seed) {}
    dpmrt_core::TorchNoise stream;
};

namespace {

using dpmrt_core::fail;
using dpmrt_core::guarded;
using dpmrt_core::needed;

// One run at a time: whoever comes second is told so.
class Turn {
public:
    explicit Turn(dpmrt_session &session) : session_(session) {
        if (session.busy.exchange(true)) {
            fail(DPMRT_ERROR_BUSY, "the session is running", "a second call, from another thread or a callback",
                 "one call at a time", "create a session for each thread; they may share plan and engine");
        }
    }
    Turn(const Turn &) = delete;
    Turn &operator=(const Turn &) = delete;
    ~Turn() { session_.busy = false; }

private:
    dpmrt_session &session_;
};

}  // namespace

extern "C" {

const char *dpmrt_status_name(dpmrt_status status) {
    switch (status) {
        case DPMRT_OK: return "DPMRT_OK";
        case DPMRT_ERROR_ARGUMENT: return "DPMRT_ERROR_ARGUMENT";
        case DPMRT_ERROR_FILE: return "DPMRT_ERROR_FILE";
        case DPMRT_ERROR_FORMAT: return "DPMRT_ERROR_FORMAT";
        case DPMRT_ERROR_VERSION: return "DPMRT_ERROR_VERSION";
        case DPMRT_ERROR_SHAPE: return "DPMRT_ERROR_SHAPE";
        case DPMRT_ERROR_MEMORY: return "DPMRT_ERROR_MEMORY";
        case DPMRT_ERROR_ENGINE: return "DPMRT_ERROR_ENGINE";
        case DPMRT_ERROR_NOISE: return "DPMRT_ERROR_NOISE";
        case DPMRT_ERROR_NONFINITE: return "DPMRT_ERROR_NONFINITE";
        case DPMRT_ERROR_BUSY: return "DPMRT_ERROR_BUSY";
        case DPMRT_ERROR_CLOSED: return "DPMRT_ERROR_CLOSED";
        case DPMRT_ERROR_INTERNAL: return "DPMRT_ERROR_INTERNAL";
        case DPMRT_CANCELLED: return "DPMRT_CANCELLED";
    }
    return "an unknown status";
}

const char *dpmrt_version(void) { return DPMRT_VERSION; }

dpmrt_status dpmrt_plan_load(const char *path, dpmrt_plan **plan, dpmrt_error *error) {
    return guarded(error, [&] {
        needed(path, "path");
        needed(plan, "plan");
        auto table = std::make_shared<const dpmrt_core::Plan>(dpmrt_core::Plan::load(path));
        *plan = new dpmrt_plan{std::move(table)};
    });
}

dpmrt_status dpmrt_plan_read(const void *data, size_t size, dpmrt_plan **plan, dpmrt_error *error) {
    return guarded(error, [&] {
        needed(data, "data");
        needed(plan, "plan");
        auto table = std::make_shared<const dpmrt_core::Plan>(dpmrt_core::Plan::parse(data, size, "the step file"));
        *plan = new dpmrt_plan{std::move(table)};
    });
}

void dpmrt_plan_free(dpmrt_plan *plan) { delete plan; }

dpmrt_status dpmrt_plan_describe(const dpmrt_plan *plan, dpmrt_plan_info *info, dpmrt_error *error) {
    return guarded(error, [&] {
        needed(plan, "plan");
        needed(info, "info");
        const dpmrt_core::Plan &table = *plan->table;
        *info = {table.rows(),
                 table.calls(),
                 table.draws(),
                 table.slots,
                 table.parts,
                 table.init_scale,
                 {table.start.state, table.start.other},
                 {table.end.state, table.end.other},
                 table.prediction.empty() ? nullptr : table.prediction.c_str()};
    });
}

dpmrt_status dpmrt_plan_times(const dpmrt_plan *plan, double *times, size_t count, dpmrt_error *error) {
    return guarded(error, [&] {
        needed(plan, "plan");
        const dpmrt_core::Plan &table = *plan->table;
        if (count != table.calls()) {
            fail(DPMRT_ERROR_ARGUMENT, "there is room for another number of times",
                 dpmrt_core::format("%zu", count), dpmrt_core::format("%zu, as the plan has calls", table.calls()));
        }
        if (count > 0) needed(times, "times");
        for (std::size_t row = 0; row < table.rows(); ++row) {
            if (table.out[row] >= 0) *times++ = table.t[row];
        }
    });
}

dpmrt_session_params dpmrt_session_default_params(void) { return dpmrt_session_params{}; }

dpmrt_run_params dpmrt_run_default_params(void) {
    dpmrt_run_params made{};
    made.guidance = dpmrt_core::no_guidance();
    return made;
}

dpmrt_status dpmrt_session_create(const dpmrt_plan *plan, const dpmrt_engine *engine,
                                  const dpmrt_session_params *params, dpmrt_session **session, dpmrt_error *error) {
    return guarded(error, [&] {
        needed(plan, "plan");
        needed(engine, "engine");
        needed(params, "params");
        needed(session, "session");
        auto made = std::make_unique<dpmrt_session>();
        made->executor = dpmrt_core::Executor::make(plan->table, *engine, *params);
        made->log = params->log;
        made->log_user = params->log_user;
        if (made->log != nullptr) {
            const std::string text = dpmrt_core::format("bound %zu network calls over %zu slots of a state of rank %zu",
                                                   plan->table->calls(), plan->table->slots, params->rank);
            made->log(made->log_user, DPMRT_LOG_INFO, text.c_str());
        }
        *session = made.release();
    });
}

dpmrt_status dpmrt_session_close(dpmrt_session *session, dpmrt_error *error) {
    return guarded(error, [&] {
        needed(session, "session");
        const Turn turn(*session);
        session->executor.reset();
    });
}

void dpmrt_session_free(dpmrt_session *session) { delete session; }

dpmrt_status dpmrt_session_run(dpmrt_session *session, const dpmrt_run_params *params, void *out, dpmrt_error *error) {
    return guarded(error, [&] {
        needed(session, "session");
        needed(params, "params");
        needed(out, "out");
        if (params->x_T != nullptr && params->start != nullptr) {
            fail(DPMRT_ERROR_ARGUMENT, "initial noise and a state to start from are given", "x_T and start",
                 "one of them");
        }
        const Turn turn(*session);
        if (!session->executor) {
            fail(DPMRT_ERROR_CLOSED, "the session was closed", {}, "an open session", "create another");
        }
        session->executor->run(*params, out);
    });
}

dpmrt_status dpmrt_noise_create(uint64_t seed, dpmrt_noise **noise, dpmrt_error *error) {
    return guarded(error, [&] {
        needed(noise, "noise");
        *noise = new dpmrt_noise(seed);
    });
}

dpmrt_status dpmrt_noise_normal(dpmrt_noise *noise, float *out, size_t count, dpmrt_error *error) {
    return guarded(error, [&] {
        needed(noise, "noise");
        if (count > 0) needed(out, "out");
        noise->stream.normal(out, count);
    });
}

void dpmrt_noise_free(dpmrt_noise *noise) { delete noise; }

}  // extern "C"
