#include <atomic>
#include <cstdlib>

#include "../bundle/files.h"
#include "../bundle/handle.h"
#include "../failure.h"
#include "../guard.h"
#include "../handles.h"
#include "dpmrt/tensorrt.h"
#include "engine.h"

struct dpmrt_tensorrt_session {
    std::unique_ptr<dpmrt_core::TensorRT> network;
    std::unique_ptr<dpmrt_core::device::Executor> executor;
    std::atomic<bool> busy{false};
};

namespace {

using namespace dpmrt_core;

class Turn {
public:
    explicit Turn(dpmrt_tensorrt_session &session) : session_(session) {
        if (session.busy.exchange(true)) {
            fail(DPMRT_ERROR_BUSY, "the session is running", "a second call, from another thread or a callback",
                 "one call at a time", "create a session for each thread");
        }
    }
    Turn(const Turn &) = delete;
    Turn &operator=(const Turn &) = delete;
    ~Turn() { session_.busy = false; }

private:
    dpmrt_tensorrt_session &session_;
};

Machine this_machine() {
    int device = 0;
    cudaDeviceProp properties;
    device::check(cudaGetDevice(&device), "looking for a GPU");
    device::check(cudaGetDeviceProperties(&properties, device), "looking at the GPU");
    const std::string version = format("%d.%d.%d.%d", getInferLibMajorVersion(), getInferLibMinorVersion(),
                                       getInferLibPatchVersion(), getInferLibBuildVersion());
    return {version, properties.name, format("%d.%d", properties.major, properties.minor), this_platform()};
}

std::string engines_folder(const std::string &bundle, const char *given) {
    const char *variable = std::getenv("DPMRT_ENGINES");
    if (given != nullptr && *given != '\0') return given;
    return variable != nullptr && *variable != '\0' ? variable : joined(bundle, "engines");
}

std::map<std::string, std::string> source_of(const OpenBundle &open) {
    std::map<std::string, std::string> source;
    const Network &unet = open.manifest.unet;
    std::vector<std::string> names = unet.data;
    names.push_back(unet.path);
    for (const std::string &name : names) {
        const FileRecord *file = open.manifest.file(name);
        if (file != nullptr) source[name] = file->sha256;
    }
    return source;
}

Names names_of(const Network &unet) {
    const auto named = [](const TensorSpec *spec, const char *role) {
        if (spec == nullptr) fail(DPMRT_ERROR_FORMAT, std::string("the network has no ") + role, {}, role);
        return spec->name;
    };
    return {named(unet.input("sample"), "sample"), named(unet.input("timestep"), "timestep"),
            named(unet.output("out_sample"), "out_sample")};
}

void create(const OpenBundle &open, const char *engines, const dpmrt_plan &plan, const dpmrt_session_params &params,
            dpmrt_tensorrt_session &made) {
    if (params.rank > DPMRT_MAX_RANK) {
        fail(DPMRT_ERROR_SHAPE, "the shape has too many axes", format("rank %zu", params.rank), format("2 to %d", DPMRT_MAX_RANK));
    }
    // TensorRT counts in 32 bits, and guidance doubles the first side.
    const std::size_t most = INT32_MAX / 2;
    for (std::size_t k = 0; k < params.rank; ++k) {
        if (params.shape[k] <= most) continue;
        fail(DPMRT_ERROR_SHAPE, "a side of the shape is out of range", format("%zu", params.shape[k]), format("%zu at most", most));
    }
    const Names names = names_of(open.manifest.unet);
    Shapes shapes;
    for (std::size_t k = 0; k < params.rank; ++k) shapes[names.sample].push_back(static_cast<std::int64_t>(params.shape[k]));
    if (params.guided != 0 && params.rank > 0) shapes[names.sample][0] *= 2;
    const BuiltEngine built =
        find_engine(engines_folder(open.root, engines), source_of(open), this_machine(), shapes, open.root);
    made.network = std::make_unique<TensorRT>(built, names);
    made.executor = device::Executor::make(plan.table, *made.network, params);
}

}  // namespace

extern "C" {

dpmrt_status dpmrt_tensorrt_session_create(const dpmrt_bundle *bundle, const char *engines, const dpmrt_plan *plan,
                                           const dpmrt_session_params *params, dpmrt_tensorrt_session **session,
                                           dpmrt_error *error) {
    return guarded(error, [&] {
        needed(bundle, "bundle");
        needed(plan, "plan");
        needed(params, "params");
        needed(session, "session");
        auto made = std::make_unique<dpmrt_tensorrt_session>();
        create(bundle->open, engines, *plan, *params, *made);
        *session = made.release();
    });
}

dpmrt_status dpmrt_tensorrt_session_condition(dpmrt_tensorrt_session *session, const char *input, const void *data,
                                              size_t bytes, dpmrt_error *error) {
    return guarded(error, [&] {
        needed(session, "session");
        needed(input, "input");
        needed(data, "data");
        const Turn turn(*session);
        session->network->condition(input, data, bytes);
    });
}

dpmrt_status dpmrt_tensorrt_session_run(dpmrt_tensorrt_session *session, const dpmrt_run_params *params, void *out,
                                        dpmrt_error *error) {
    return guarded(error, [&] {
        needed(session, "session");
        needed(params, "params");
        needed(out, "out");
        if (params->x_T != nullptr && params->start != nullptr) {
            fail(DPMRT_ERROR_ARGUMENT, "initial noise and a state to start from are given", "x_T and start", "one of them");
        }
        const Turn turn(*session);
        session->executor->run(*params, out);
    });
}

int dpmrt_tensorrt_session_captured(const dpmrt_tensorrt_session *session) {
    return session != nullptr && session->executor->captured() ? 1 : 0;
}

void dpmrt_tensorrt_session_free(dpmrt_tensorrt_session *session) { delete session; }

}  // extern "C"
