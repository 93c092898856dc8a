/*
 * A bundle's network in TensorRT, sampled on the GPU: state, outputs and weights stay in the device's memory, a row of the
 * plan is one kernel, and a whole trajectory becomes one CUDA graph. In the library if it was built with DPMRT_TENSORRT.
 *
 *     dpmrt_tensorrt_session *session = NULL;
 *     dpmrt_session_params params = dpmrt_session_default_params();
 *     params.rank = 4; ...
 *     if (dpmrt_tensorrt_session_create(bundle, NULL, plan, &params, &session, &error)) ...
 *     dpmrt_run_params run = dpmrt_run_default_params();
 *     dpmrt_tensorrt_session_run(session, &run, samples, &error);
 *     dpmrt_tensorrt_session_free(session);
 *
 * The rules of dpmrt.h hold here too. A session is for one thread at a time, on the device that is CUDA's current one.
 * A guided session always runs the network on both halves: `guided_alone` is refused.
 */
#ifndef DPMRT_TENSORRT_H
#define DPMRT_TENSORRT_H

#include "dpmrt/bundle.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A plan bound to an engine and a shape, with its buffers on the device. */
typedef struct dpmrt_tensorrt_session dpmrt_tensorrt_session;

/*
 * Finds the engine that suits the bundle's graph, this GPU and the shape, of those that `dpmrt build` made; checks and
 * loads it; and allocates every buffer. `engines` is the folder where they are, or NULL for DPMRT_ENGINES, or else
 * engines/ within the bundle. Where none suits, the text says of each why. Plan and bundle may be freed before the session.
 */
DPMRT_API dpmrt_status dpmrt_tensorrt_session_create(const dpmrt_bundle *bundle, const char *engines, const dpmrt_plan *plan,
                                                     const dpmrt_session_params *params, dpmrt_tensorrt_session **session,
                                                     dpmrt_error *error);

/*
 * Sets what the network is conditioned on, by the input's name in the graph: as many bytes as the engine's input has, in
 * its type. In a guided session the engine's batch is twice the session's: first what is wanted, then what guidance moves
 * away from. It stays until it is set again.
 */
DPMRT_API dpmrt_status dpmrt_tensorrt_session_condition(dpmrt_tensorrt_session *session, const char *input, const void *data,
                                                        size_t bytes, dpmrt_error *error);

/*
 * Samples; `out` is on the host. All noise is drawn before the first call. A run with no progress callback is captured as
 * a CUDA graph the second time, and replayed from then on, whatever its seed, noise, conditions and scales of guidance;
 * only to begin or to end a rescale of guidance captures anew.
 */
DPMRT_API dpmrt_status dpmrt_tensorrt_session_run(dpmrt_tensorrt_session *session, const dpmrt_run_params *params, void *out,
                                                  dpmrt_error *error);

/* Returns 1 if runs are replayed as one CUDA graph, or else 0. */
DPMRT_API int dpmrt_tensorrt_session_captured(const dpmrt_tensorrt_session *session);

/* Frees a session; NULL is allowed. It must not be running. */
DPMRT_API void dpmrt_tensorrt_session_free(dpmrt_tensorrt_session *session);

#ifdef __cplusplus
}
#endif

#endif
