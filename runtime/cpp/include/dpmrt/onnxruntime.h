/*
 * ONNX Runtime as an engine, on the CPU: a bundle's network, bound to the addresses of a session's buffers.
 *
 *     dpmrt_onnxruntime *network = NULL;
 *     dpmrt_onnxruntime_params params = dpmrt_onnxruntime_default_params();
 *     dpmrt_onnxruntime_open(bundle, &params, &network, &error);
 *     dpmrt_onnxruntime_use use = {network, conditions};
 *     dpmrt_engine engine = dpmrt_onnxruntime_engine(&use);
 *     dpmrt_session_create(plan, &engine, &session_params, &session, &error);
 *
 * One network serves the sessions of any number of threads, each with conditions of its own. The library is
 * dpmrt_onnxruntime (CMake: dpmrt::onnxruntime), built with -DDPMRT_ONNXRUNTIME=ON. The rules of dpmrt.h hold here too.
 */
#ifndef DPMRT_ONNXRUNTIME_H
#define DPMRT_ONNXRUNTIME_H

#include "dpmrt/conditions.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A network that ONNX Runtime has opened. */
typedef struct dpmrt_onnxruntime dpmrt_onnxruntime;

typedef enum dpmrt_onnxruntime_graph {
    DPMRT_GRAPH_AUTO = 0,    /* the emulated one for bfloat16, which ONNX Runtime has no kernels for on the CPU */
    DPMRT_GRAPH_OWN = 1,
    DPMRT_GRAPH_EMULATED = 2
} dpmrt_onnxruntime_graph;

typedef struct dpmrt_onnxruntime_params {
    int threads; /* inside one operator; 0 leaves it to ONNX Runtime */
    int graph;   /* a dpmrt_onnxruntime_graph */
} dpmrt_onnxruntime_params;

DPMRT_API dpmrt_onnxruntime_params dpmrt_onnxruntime_default_params(void);

/* Opens the bundle's network and holds it against the manifest. It is the caller's; the bundle may be freed first. */
DPMRT_API dpmrt_status dpmrt_onnxruntime_open(const dpmrt_bundle *bundle, const dpmrt_onnxruntime_params *params,
                                              dpmrt_onnxruntime **network, dpmrt_error *error);

/* Frees a network; NULL is allowed. Its sessions must be freed first. */
DPMRT_API void dpmrt_onnxruntime_free(dpmrt_onnxruntime *network);

/* A network and what its samples are conditioned on: one for each session, or for sessions of the same conditions. */
typedef struct dpmrt_onnxruntime_use {
    dpmrt_onnxruntime *network;
    const dpmrt_conditions *conditions; /* NULL for a network that takes none */
} dpmrt_onnxruntime_use;

/* Returns the engine for sessions; `use` and what it points to must outlive them. */
DPMRT_API dpmrt_engine dpmrt_onnxruntime_engine(const dpmrt_onnxruntime_use *use);

#ifdef __cplusplus
}
#endif

#endif
