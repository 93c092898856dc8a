/*
 * A bundle: a network and all that is known of it, as Python's `dpmrt export` wrote it into a folder.
 *
 * The manifest `dpmrt.json` is read strictly, and every file that it lists is held against its size and SHA-256; what is
 * wrong is said in the words of Python's reader. Nothing here loads the network: an adapter does, or a program's own code.
 *
 *     dpmrt_error error;
 *     dpmrt_bundle *bundle = NULL;
 *     dpmrt_bundle_info info;
 *     if (dpmrt_bundle_open("bundles/digits", &bundle, &error)) { fputs(error.text, stderr); return 1; }
 *     dpmrt_bundle_describe(bundle, &info, &error);
 *     dpmrt_bundle_free(bundle);
 *
 * A bundle is immutable, and any number of threads may read one. Texts and structs that it gives are its own: they last
 * until it is freed. The rules of dpmrt.h hold here too.
 */
#ifndef DPMRT_BUNDLE_H
#define DPMRT_BUNDLE_H

#include "dpmrt/dpmrt.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dpmrt_bundle dpmrt_bundle;

/* Reads a bundle's manifest and configs, and checks its files. The bundle is the caller's, to free. */
DPMRT_API dpmrt_status dpmrt_bundle_open(const char *folder, dpmrt_bundle **bundle, dpmrt_error *error);

/* Frees a bundle; NULL is allowed. */
DPMRT_API void dpmrt_bundle_free(dpmrt_bundle *bundle);

typedef struct dpmrt_bundle_info {
    const char *folder;        /* as it was opened */
    const char *name;
    const char *prediction;    /* "epsilon", "sample", "v_prediction", "flow", "score" or "edm" */
    double data_range[2];      /* what the data lies in, as -1 and 1 */
    int64_t steps;             /* how many steps to sample with where nobody says */
    int64_t classes;           /* labels are 0 to classes - 1; 0 where that is not known */
    int guided;                /* whether the network was trained for guidance by class */
    int64_t null_label;        /* the label that stands for no class; -1 where it is not guided */
    double guidance_scale;     /* the usual one; 1 where it is not guided */
    size_t rank;               /* axes of one sample, without the batch */
    int64_t sample[DPMRT_MAX_RANK]; /* the usual shape of one sample; 0 where a side is not known */
} dpmrt_bundle_info;

/* Fills in what is known of a bundle. */
DPMRT_API dpmrt_status dpmrt_bundle_describe(const dpmrt_bundle *bundle, dpmrt_bundle_info *info, dpmrt_error *error);

typedef enum dpmrt_network {
    DPMRT_NETWORK_UNET = 0,       /* every bundle has it */
    DPMRT_NETWORK_CLASSIFIER = 1, /* the gradient of a classifier */
    DPMRT_NETWORK_VJP = 2         /* the product of a vector and the network's Jacobian */
} dpmrt_network;

/* A file that was held against its size and hash. */
typedef struct dpmrt_file_info {
    const char *path;   /* to open it by */
    const char *name;   /* in the manifest, as "unet/model.onnx" */
    const char *sha256; /* in hexadecimal digits */
    int64_t bytes;
} dpmrt_file_info;

typedef struct dpmrt_network_info {
    dpmrt_file_info graph;     /* the ONNX file */
    size_t data_count;         /* files of weights beside the graph */
    size_t input_count;
    size_t output_count;
    size_t axis_count;         /* free axes that are limited or have a usual size */
    const char *precision;     /* "fp32", "fp16" or "bf16": what nearly all of it computes in */
    int has_emulated;          /* whether `emulated` is there: the same in fp32, rounded, which runs anywhere */
    dpmrt_file_info emulated;
    size_t channel_axis;       /* of samples, the batch counted */
    int64_t extra_channels;    /* channels of the input behind those of the state, as inpainting's mask */
    int64_t learned_channels;  /* channels of the output behind those of the state: a variance */
    int folded_guidance;       /* whether guidance is a part of the graph, its scale the input `guidance_scale` */
} dpmrt_network_info;

/* Fills in what is known of a network; DPMRT_ERROR_ARGUMENT where the bundle has none of the kind. */
DPMRT_API dpmrt_status dpmrt_bundle_network(const dpmrt_bundle *bundle, dpmrt_network network, dpmrt_network_info *info,
                                            dpmrt_error *error);

/* Fills in which file of weights is number `index`, of network.data_count. */
DPMRT_API dpmrt_status dpmrt_bundle_data(const dpmrt_bundle *bundle, dpmrt_network network, size_t index,
                                         dpmrt_file_info *info, dpmrt_error *error);

typedef enum dpmrt_tensor_type {
    DPMRT_TENSOR_FLOAT32 = 0,
    DPMRT_TENSOR_FLOAT16 = 1,
    DPMRT_TENSOR_BFLOAT16 = 2,
    DPMRT_TENSOR_INT64 = 3,
    DPMRT_TENSOR_INT32 = 4
} dpmrt_tensor_type;

typedef struct dpmrt_tensor_info {
    const char *role;   /* "sample", "timestep", "class_labels", "out_sample", ..., or a condition's own name */
    const char *name;   /* in the graph */
    dpmrt_tensor_type type;
    size_t rank;        /* 0 for one number */
    int64_t shape[DPMRT_MAX_RANK];     /* 0 for a free axis */
    const char *axis[DPMRT_MAX_RANK];  /* the free axis's name; NULL for a size that is fixed */
} dpmrt_tensor_info;

/* Fills in what input number `index` is, of network.input_count. */
DPMRT_API dpmrt_status dpmrt_bundle_input(const dpmrt_bundle *bundle, dpmrt_network network, size_t index,
                                          dpmrt_tensor_info *info, dpmrt_error *error);

/* Fills in what output number `index` is, of network.output_count. */
DPMRT_API dpmrt_status dpmrt_bundle_output(const dpmrt_bundle *bundle, dpmrt_network network, size_t index,
                                           dpmrt_tensor_info *info, dpmrt_error *error);

/* The sizes that a free axis takes: from `min` to `max`, in multiples, mostly `opt`. */
typedef struct dpmrt_axis_info {
    const char *name;
    int64_t opt;
    int64_t min;
    int64_t max;        /* 0 for no bound */
    int64_t multiple;
} dpmrt_axis_info;

/* Fills in what axis number `index` is, of network.axis_count. */
DPMRT_API dpmrt_status dpmrt_bundle_axis(const dpmrt_bundle *bundle, dpmrt_network network, size_t index,
                                         dpmrt_axis_info *info, dpmrt_error *error);

#ifdef __cplusplus
}
#endif

#endif
