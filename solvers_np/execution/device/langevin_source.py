"""The CUDA source of a Langevin step's size: norms of score and noise, what they set, and the scaling by it.

Norms are summed in double, in an order that depends on the number of threads alone.
"""

from __future__ import annotations

from dpmrt.solvers_np.execution.device.source import LOOP, PRELUDE, TYPES

#: threads that measure one sample; a power of two, as their sums are added up in halves
NORM_THREADS = 256


def norms_source(dtype: str) -> tuple[str, str]:
    """Return the kernel that writes norms[b] of score and norms[batch + b] of noise; a block measures a sample."""
    real = TYPES[dtype]
    return (
        f"""{PRELUDE}
extern "C" __global__ void norms(i64 count, const {real} *score, const {real} *noise, double *norms)
{{
    __shared__ double of_score[{NORM_THREADS}], of_noise[{NORM_THREADS}];
    const {real} *q = score + blockIdx.x * count, *z = noise + blockIdx.x * count;
    double sum_q = 0, sum_z = 0;
    for (i64 i = threadIdx.x; i < count; i += blockDim.x) {{
        sum_q += (double)q[i] * (double)q[i];
        sum_z += (double)z[i] * (double)z[i];
    }}
    of_score[threadIdx.x] = sum_q;
    of_noise[threadIdx.x] = sum_z;
    __syncthreads();
    for (u32 half = blockDim.x / 2; half > 0; half /= 2) {{
        if (threadIdx.x < half) {{
            of_score[threadIdx.x] += of_score[threadIdx.x + half];
            of_noise[threadIdx.x] += of_noise[threadIdx.x + half];
        }}
        __syncthreads();
    }}
    if (threadIdx.x == 0) {{
        norms[blockIdx.x] = sqrt(of_score[0]);
        norms[gridDim.x + blockIdx.x] = sqrt(of_noise[0]);
    }}
}}
""",
        "norms",
    )


def step_source(dtype: str) -> tuple[str, str]:
    """Return the kernel, of one thread, that writes each sample's h over the norms of the scores.

    Where no step can be set it flags that, and writes ones: what else is not finite then names itself.
    """
    real = TYPES[dtype]
    return (
        f"""{PRELUDE}
extern "C" __global__ void langevin_step(i64 batch, double *norms, double snr, u32 per_sample, u32 *flag, u32 kind)
{{
    double mean_q = 0, mean_z = 0;
    bool wrong = false;
    for (i64 b = 0; b < batch; ++b) {{ mean_q += norms[b] / batch; mean_z += norms[batch + b] / batch; }}
    for (i64 b = 0; b < batch; ++b) {{
        const double q = per_sample ? norms[b] : mean_q, z = per_sample ? norms[batch + b] : mean_z;
        const double h = snr * z / q;
        wrong = wrong || q == 0 || bad(({real})(h * h));
        norms[b] = h;
    }}
    if (!wrong) return;
    atomicOr(flag, kind);
    for (i64 b = 0; b < batch; ++b) norms[b] = 1;
}}
""",
        "langevin_step",
    )


def scale_source(dtype: str) -> tuple[str, str]:
    """Return the kernel that makes the score h^2 as large, and writes h times the noise."""
    real = TYPES[dtype]
    return (
        f"""{PRELUDE}
extern "C" __global__ void langevin_scale(i64 count, i64 block, const double *steps, {real} *score,
                                          const {real} *from, {real} *to)
{{
    {LOOP} {{
        const double h = steps[i / block];
        score[i] *= ({real})(h * h);
        to[i] = from[i] * ({real})h;
    }}
}}
""",
        "langevin_scale",
    )
