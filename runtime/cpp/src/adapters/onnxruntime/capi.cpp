// The C functions of the ONNX Runtime adapter.
#include "dpmrt/onnxruntime.h"

#include <memory>

#include "network.h"

struct dpmrt_onnxruntime {
    dpmrt_adapter::OrtNetwork network;
};

namespace {

using dpmrt_adapter::guarded;
using dpmrt_adapter::needed;
using dpmrt_adapter::OrtCall;

dpmrt_status bind(void *user, const dpmrt_binding *binding, void **bound, dpmrt_error *error) {
    return guarded(error, [&] {
        const auto *use = static_cast<const dpmrt_onnxruntime_use *>(user);
        needed(use, "use");
        needed(use->network, "use.network");
        *bound = std::make_unique<OrtCall>(use->network->network, use->conditions, *binding).release();
    });
}

dpmrt_status run(void *, void *bound, size_t, double t, size_t output, dpmrt_error *error) {
    return guarded(error, [&] { static_cast<OrtCall *>(bound)->run(t, output); });
}

void unbind(void *, void *bound) { delete static_cast<OrtCall *>(bound); }

}  // namespace

extern "C" {

dpmrt_onnxruntime_params dpmrt_onnxruntime_default_params(void) { return {}; }

dpmrt_status dpmrt_onnxruntime_open(const dpmrt_bundle *bundle, const dpmrt_onnxruntime_params *params,
                                    dpmrt_onnxruntime **network, dpmrt_error *error) {
    return guarded(error, [&] {
        needed(bundle, "bundle");
        needed(params, "params");
        needed(network, "network");
        *network = std::make_unique<dpmrt_onnxruntime>(dpmrt_onnxruntime{{bundle, *params}}).release();
    });
}

void dpmrt_onnxruntime_free(dpmrt_onnxruntime *network) { delete network; }

dpmrt_engine dpmrt_onnxruntime_engine(const dpmrt_onnxruntime_use *use) {
    return {const_cast<dpmrt_onnxruntime_use *>(use), bind, run, unbind};
}

}  // extern "C"
