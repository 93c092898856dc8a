/*
 * dpmrt: run a compiled diffusion sampler against any network, with no Python.
 *
 * A sampler is a step file, written by Python's `StepPlan.save` or `dpmrt sample --save-plan`: a table that says when
 * the network is called and how its outputs and fresh noise make the next state. This library executes that table and
 * holds no sampler's formula. A network is a struct of callbacks, `dpmrt_engine`, so any inference library fits.
 *
 *     dpmrt_error error;
 *     dpmrt_plan *plan = NULL;
 *     dpmrt_session *session = NULL;
 *     if (dpmrt_plan_load("karras20.steps", &plan, &error)) { fputs(error.text, stderr); return 1; }
 *     dpmrt_session_params params = dpmrt_session_default_params();
 *     params.rank = 4;
 *     params.shape[0] = 1; params.shape[1] = 4; params.shape[2] = 64; params.shape[3] = 64;
 *     if (dpmrt_session_create(plan, &engine, &params, &session, &error)) ...
 *     dpmrt_run_params run = dpmrt_run_default_params();
 *     run.seed = 7;
 *     if (dpmrt_session_run(session, &run, samples, &error)) ...
 *     dpmrt_session_free(session);
 *     dpmrt_plan_free(plan);
 *
 * Rules that hold for every function:
 *   - It returns DPMRT_OK, or a status and, where `error` is not NULL, a text that says what arrived, what was expected
 *     and what to do. No C++ exception leaves the library. On failure outputs are left as they were, unless said.
 *   - There is no global state. Handles of different sessions may be used from different threads at once; one session
 *     is for one thread at a time, and a second thread is told DPMRT_ERROR_BUSY.
 *   - A plan is immutable: any number of sessions and threads share one. A session keeps what it needs of its plan, so
 *     the plan may be freed first. The engine's callbacks and `user` must outlive the session.
 *   - Structs of parameters come from their `_default_params` function, so that fields added later have their defaults.
 */
#ifndef DPMRT_H
#define DPMRT_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(DPMRT_SHARED)
#ifdef DPMRT_BUILD
#define DPMRT_API __declspec(dllexport)
#else
#define DPMRT_API __declspec(dllimport)
#endif
#elif defined(__GNUC__)
#define DPMRT_API __attribute__((visibility("default")))
#else
#define DPMRT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define DPMRT_MAX_RANK 8

typedef enum dpmrt_status {
    DPMRT_OK = 0,
    DPMRT_ERROR_ARGUMENT = 1,   /* a null pointer, or a parameter that cannot be honoured */
    DPMRT_ERROR_FILE = 2,       /* a file that cannot be read */
    DPMRT_ERROR_FORMAT = 3,     /* a file that is truncated, altered, or holds what it must not */
    DPMRT_ERROR_VERSION = 4,    /* a file of another version */
    DPMRT_ERROR_SHAPE = 5,      /* shapes or types that do not fit together */
    DPMRT_ERROR_MEMORY = 6,     /* memory that could not be had */
    DPMRT_ERROR_ENGINE = 7,     /* the engine's callback failed, or an adapter's library refused */
    DPMRT_ERROR_NOISE = 8,      /* the noise callback failed */
    DPMRT_ERROR_NONFINITE = 9,  /* NaN or infinity, with the call at which it appeared */
    DPMRT_ERROR_BUSY = 10,      /* the session is running, in another thread or in this one */
    DPMRT_ERROR_CLOSED = 11,    /* the session was closed */
    DPMRT_ERROR_INTERNAL = 12,  /* a defect of this library */
    DPMRT_CANCELLED = 13        /* the progress callback asked to stop */
} dpmrt_status;

/* What went wrong, in the words for a person. Owned by the caller; always terminated. */
typedef struct dpmrt_error {
    char text[1024];
} dpmrt_error;

/* Returns the name of a status, as "DPMRT_OK". Never NULL. */
DPMRT_API const char *dpmrt_status_name(dpmrt_status status);

/* Returns the library's version, as "0.1.0". */
DPMRT_API const char *dpmrt_version(void);

/* ---- plans ------------------------------------------------------------------------------------------------- */

/* A sampler as a table. Immutable, and safe to share between threads. */
typedef struct dpmrt_plan dpmrt_plan;

typedef struct dpmrt_plan_info {
    size_t rows;       /* rows of the table */
    size_t calls;      /* network calls */
    size_t draws;      /* arrays of fresh noise that it asks for */
    size_t slots;      /* buffers beside the state */
    int parts;         /* 2 where the network's output has a second half, for the variance */
    double init_scale; /* sampling from nothing begins at init_scale times unit noise */
    double start[2];   /* an edit of x0 begins at start[0] * x0 + start[1] * noise */
    double end[2];     /* signal and noise that the result holds, mostly 1 and 0 */
} dpmrt_plan_info;

/* Reads a step file. The plan is the caller's, to free. */
DPMRT_API dpmrt_status dpmrt_plan_load(const char *path, dpmrt_plan **plan, dpmrt_error *error);

/* Reads the bytes of a step file; they are copied, and may go when this returns. */
DPMRT_API dpmrt_status dpmrt_plan_read(const void *data, size_t size, dpmrt_plan **plan, dpmrt_error *error);

/* Frees a plan; NULL is allowed. */
DPMRT_API void dpmrt_plan_free(dpmrt_plan *plan);

/* Fills in what is known of a plan. */
DPMRT_API dpmrt_status dpmrt_plan_describe(const dpmrt_plan *plan, dpmrt_plan_info *info, dpmrt_error *error);

/* Copies the times of the network calls, in order, into times[0..count); count must be the plan's calls. */
DPMRT_API dpmrt_status dpmrt_plan_times(const dpmrt_plan *plan, double *times, size_t count, dpmrt_error *error);

/* ---- engines ----------------------------------------------------------------------------------------------- */

typedef enum dpmrt_dtype {
    DPMRT_FLOAT32 = 0,
    DPMRT_FLOAT64 = 1
} dpmrt_dtype;

/* Where a session's buffers are. They keep their addresses until the session is freed. */
typedef struct dpmrt_binding {
    dpmrt_dtype dtype;
    size_t rank;
    const size_t *shape;   /* of the state, batch first */
    int parts;             /* outputs hold `parts` times the channels (axis 1) of the state */
    const void *input;     /* what the network reads; filled before every run */
    void *const *outputs;  /* what it writes: run(..., output) means outputs[output] */
    size_t output_count;
    const double *times;   /* the time of every call, in order */
    size_t calls;
    int guided;            /* 1: the batch is doubled; its first half is conditioned, its second is not */
} dpmrt_binding;

/*
 * A network. `run` reads binding.input and writes all of binding.outputs[output]; on a status other than DPMRT_OK the
 * run ends with it, and with the text that was put into `error`. Sessions of many threads may call `run` at once, each
 * with its own `bound`. `bind` and `unbind` may be NULL: `bound` is then the binding itself.
 */
typedef struct dpmrt_engine {
    void *user;
    dpmrt_status (*bind)(void *user, const dpmrt_binding *binding, void **bound, dpmrt_error *error);
    dpmrt_status (*run)(void *user, void *bound, size_t call, double t, size_t output, dpmrt_error *error);
    void (*unbind)(void *user, void *bound);
} dpmrt_engine;

/* ---- sessions ---------------------------------------------------------------------------------------------- */

/* A plan bound to an engine and a shape, with its buffers. */
typedef struct dpmrt_session dpmrt_session;

/* The caller's memory for the buffers of a session. `allocate` returns NULL when there is none. */
typedef struct dpmrt_allocator {
    void *user;
    void *(*allocate)(void *user, size_t bytes, size_t alignment);
    void (*release)(void *user, void *memory, size_t bytes);
} dpmrt_allocator;

typedef enum dpmrt_log_level {
    DPMRT_LOG_INFO = 0,
    DPMRT_LOG_WARNING = 1
} dpmrt_log_level;

typedef struct dpmrt_session_params {
    size_t rank;                   /* 2 to DPMRT_MAX_RANK */
    size_t shape[DPMRT_MAX_RANK];  /* of the state, batch first */
    int dtype;                     /* a dpmrt_dtype, of state and buffers; DPMRT_FLOAT32 by default */
    dpmrt_allocator allocator;     /* the library's own when `allocate` is NULL */
    void (*log)(void *user, dpmrt_log_level level, const char *text); /* none when NULL */
    void *log_user;
    /*
     * Classifier-free guidance: 1 binds the engine to a doubled batch (dpmrt_binding.guided), of which the session makes one
     * output; runs say how strongly. `guided_alone` binds the engine to the conditioned half too, by itself, and runs that
     * alone at calls whose scales are all 1, as outside of an interval.
     */
    int guided;
    int guided_alone;
} dpmrt_session_params;

/* Returns parameters in float32 with the library's allocator; the shape is still to be set. */
DPMRT_API dpmrt_session_params dpmrt_session_default_params(void);

/* Allocates every buffer, binds the engine, and composes the plan's rows for it. The session is the caller's. */
DPMRT_API dpmrt_status dpmrt_session_create(const dpmrt_plan *plan, const dpmrt_engine *engine,
                                            const dpmrt_session_params *params, dpmrt_session **session,
                                            dpmrt_error *error);

/* Releases the buffers and unbinds the engine. What is called with the session later returns DPMRT_ERROR_CLOSED. */
DPMRT_API dpmrt_status dpmrt_session_close(dpmrt_session *session, dpmrt_error *error);

/* Closes a session and frees it; NULL is allowed. It must not be running. */
DPMRT_API void dpmrt_session_free(dpmrt_session *session);

/* What the progress callback sees after each network call. `x` is the live state, to read. */
typedef struct dpmrt_progress {
    size_t call;   /* counted from one */
    size_t calls;
    double t;
    const void *x;
} dpmrt_progress;

typedef enum dpmrt_guidance_schedule {
    DPMRT_SCHEDULE_CONSTANT = 0,
    DPMRT_SCHEDULE_LINEAR = 1, /* from 1 at the first call to the scale at the last */
    DPMRT_SCHEDULE_COSINE = 2  /* the same on half a wave */
} dpmrt_guidance_schedule;

typedef enum dpmrt_guidance_unit {
    DPMRT_UNIT_PROGRESS = 0, /* 0 at the first network call and 1 at the last */
    DPMRT_UNIT_TIME = 1,     /* the network's time */
    DPMRT_UNIT_SIGMA = 2     /* the ratio of noise to signal */
} dpmrt_guidance_unit;

/*
 * Classifier-free guidance: null + scale * (given - null). A scale of 1 is none; a session that was made without
 * guidance takes no other.
 */
typedef struct dpmrt_guidance {
    double scale;         /* of all samples */
    const double *scales; /* instead, one for each sample; NULL for `scale` */
    size_t scale_count;
    int schedule;         /* a dpmrt_guidance_schedule */
    const double *table;  /* instead of all that, a scale for each call, or for each call and sample; NULL for none */
    size_t table_calls;
    size_t table_samples; /* 1, or as many as there are */
    double low, high;     /* where guidance acts, both included; elsewhere the scale is 1. Without bounds by default */
    int unit;             /* a dpmrt_guidance_unit, of low and high */
    double rescale;       /* 0 to 1: brings each sample's deviation back to that of the conditioned output */
} dpmrt_guidance;

typedef struct dpmrt_run_params {
    uint64_t seed;       /* of the initial and the fresh noise, as torch's CPU generator */
    const void *x_T;     /* unit noise in the session's dtype, instead of the seed's first draw; NULL for that */
    const void *start;   /* the state to begin from as it is, instead of noise; NULL for noise */
    /*
     * Fresh noise, in the session's dtype, instead of the seed's: fill out[0..count). `from` and `to` are the noise's
     * share of the variance where the noise begins and ends to act. A status other than DPMRT_OK ends the run.
     */
    dpmrt_status (*noise)(void *user, void *out, size_t count, double from, double to, dpmrt_error *error);
    void *noise_user;
    /* Called after each network call; anything but 0 stops the run with DPMRT_CANCELLED. */
    int (*progress)(void *user, const dpmrt_progress *progress);
    void *progress_user;
    dpmrt_guidance guidance; /* its arrays are read during the run */
} dpmrt_run_params;

/* Returns parameters with seed 0, no callbacks and no guidance. */
DPMRT_API dpmrt_run_params dpmrt_run_default_params(void);

/*
 * Samples. `out` takes the result, in the session's dtype and shape, and is the caller's; it is written at the end, and
 * not at all on failure. Nothing is allocated. A session runs again and again, also after a failure.
 */
DPMRT_API dpmrt_status dpmrt_session_run(dpmrt_session *session, const dpmrt_run_params *params, void *out,
                                         dpmrt_error *error);

/* ---- noise ------------------------------------------------------------------------------------------------- */

/* A stream of standard normal noise, equal to torch's CPU generator draw for draw. For one thread at a time. */
typedef struct dpmrt_noise dpmrt_noise;

/* Starts a stream. It is the caller's. */
DPMRT_API dpmrt_status dpmrt_noise_create(uint64_t seed, dpmrt_noise **noise, dpmrt_error *error);

/* Writes the next draw, what torch.randn gives for an array of so many numbers. */
DPMRT_API dpmrt_status dpmrt_noise_normal(dpmrt_noise *noise, float *out, size_t count, dpmrt_error *error);

/* Frees a stream; NULL is allowed. */
DPMRT_API void dpmrt_noise_free(dpmrt_noise *noise);

#ifdef __cplusplus
}
#endif

#endif
