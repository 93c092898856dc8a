/*
 * What samples are conditioned on, class labels or any other inputs of a bundle's network, held against its manifest.
 *
 *     dpmrt_conditions *conditions = NULL;
 *     const int64_t label = 3;
 *     dpmrt_conditions_create(bundle, 4, &conditions, &error);
 *     dpmrt_conditions_labels(conditions, &label, 1, &error);
 *
 * Conditions may change between the runs of a session, and never during one; their shapes stay what they were first. They
 * must outlive the sessions that are bound to them. The rules of dpmrt.h hold here too.
 */
#ifndef DPMRT_CONDITIONS_H
#define DPMRT_CONDITIONS_H

#include "dpmrt/bundle.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dpmrt_conditions dpmrt_conditions;

/*
 * The role of what a network takes in the channels behind those of the state, as inpainting's mask and picture: shaped as
 * the samples, with as many channels as there are more. It is no input of the graph, but a part of its sample.
 */
#define DPMRT_EXTRA_CHANNELS "extra_channels"

/*
 * Makes room for the conditions of `batch` samples, and of as many without them, for guidance. Labels begin as "no class"
 * where the bundle has a label for that; everything else is missing until it is given. The bundle may be freed first.
 */
DPMRT_API dpmrt_status dpmrt_conditions_create(const dpmrt_bundle *bundle, size_t batch, dpmrt_conditions **conditions,
                                               dpmrt_error *error);

/* Frees conditions; NULL is allowed. */
DPMRT_API void dpmrt_conditions_free(dpmrt_conditions *conditions);

/* Sets the class labels: one for all samples, or one for each. */
DPMRT_API dpmrt_status dpmrt_conditions_labels(dpmrt_conditions *conditions, const int64_t *labels, size_t count,
                                               dpmrt_error *error);

/*
 * Sets the input that plays `role`, from numbers of type DPMRT_TENSOR_FLOAT32 or DPMRT_TENSOR_INT64, which are cast to the
 * graph's. The shape begins with the batch, or with 1 for the same to all samples. Guidance moves away from the same until
 * something else is set for it.
 */
DPMRT_API dpmrt_status dpmrt_conditions_set(dpmrt_conditions *conditions, const char *role, const void *data,
                                            dpmrt_tensor_type type, const size_t *shape, size_t rank, dpmrt_error *error);

/* Sets what guidance moves away from, for an input that has a batch; the shape is that of the condition. */
DPMRT_API dpmrt_status dpmrt_conditions_negative(dpmrt_conditions *conditions, const char *role, const void *data,
                                                 dpmrt_tensor_type type, const size_t *shape, size_t rank,
                                                 dpmrt_error *error);

/* A condition as adapters bind it. */
typedef struct dpmrt_condition_info {
    const char *role;
    const char *name; /* in the graph */
    dpmrt_tensor_type type;
    size_t rank;      /* 0 for one number for all samples */
    size_t shape[DPMRT_MAX_RANK]; /* begins with twice the batch: first the given rows, then those without */
    const void *data; /* at this address until the conditions are freed */
    size_t row_bytes; /* of one sample; of the number where the rank is 0 */
} dpmrt_condition_info;

/* Returns how many conditions the network takes; 0 for NULL. */
DPMRT_API size_t dpmrt_conditions_count(const dpmrt_conditions *conditions);

/* Returns for how many samples there is room; 0 for NULL. */
DPMRT_API size_t dpmrt_conditions_batch(const dpmrt_conditions *conditions);

/* Fills in condition number `index`; a text says so where it is missing. */
DPMRT_API dpmrt_status dpmrt_conditions_get(const dpmrt_conditions *conditions, size_t index, dpmrt_condition_info *info,
                                            dpmrt_error *error);

#ifdef __cplusplus
}
#endif

#endif
