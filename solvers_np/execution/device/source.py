"""The CUDA source of the executor's kernels.

No header is included, so that NVRTC needs no toolkit beside it. The same text compiles as C++ on the host, with
`DPMRT_SHIM` defined and the few words of CUDA that it uses; that is how the tests run it without a GPU.
"""

from __future__ import annotations

#: bytes that a thread moves at once; rows are padded to whole multiples, so that there is no remainder to handle
PACK_BYTES = 16

#: what a step's flag says was not finite
BAD_STATE, BAD_NETWORK, BAD_SECOND, BAD_NOISE, BAD_SCORE = 1, 2, 4, 8, 16

#: sources of a row that four bits of one word each are left for
MOST_MARKED = 16

TYPES = {"float16": "half16", "float32": "float", "float64": "double"}
_BITS = {"float32": ("unsigned int", 32), "float64": ("unsigned long long", 64)}
LOOP = "for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < count; i += (i64)gridDim.x * blockDim.x)"

PRELUDE = r"""
typedef long long i64;
typedef unsigned long long u64;
typedef unsigned int u32;
#ifndef DPMRT_SHIM
struct half16 { unsigned short bits; };
__device__ inline float wide(half16 h) { float f; asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h.bits)); return f; }
__device__ inline void put(half16 *to, float f) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to->bits) : "f"(f)); }
__device__ inline void put(half16 *to, double f) { put(to, (float)f); }
#endif
__device__ inline float wide(float f) { return f; }
__device__ inline double wide(double f) { return f; }
template <typename T> __device__ inline void put(float *to, T f) { *to = (float)f; }
template <typename T> __device__ inline void put(double *to, T f) { *to = (double)f; }
// infinity and NaN are what is not itself less itself
template <typename T> __device__ inline bool bad(T v) { return (v - v) != 0; }
"""


def update_source(targets: int, sources: int, dtype: str) -> tuple[str, str]:
    """Return source and name of the kernel that applies a row of weights in one pass over memory.

    Each of `targets` rows becomes a weighted sum of `sources` rows, which may be the same ones. `kinds` holds four
    bits a source, of the first sixteen: what to flag if it is not finite; `kind` is the same for the first target.
    """
    real, width = TYPES[dtype], PACK_BYTES // (4 if dtype == "float32" else 8)
    name = f"update_{targets}_{sources}"
    params = [f"Pack *t{k}" for k in range(targets)] + [f"const Pack *s{k}" for k in range(sources)]
    loads = " ".join(f"Pack a{k} = s{k}[i];" for k in range(sources))
    marked = range(min(sources, MOST_MARKED))
    marks = " ".join(f"if (bad(a{k}.v[j])) seen |= (u32)(kinds >> {4 * k}) & 15u;" for k in marked)
    sums = "\n".join(
        f"            r{t}.v[j] = {' + '.join(f'w[{t * sources + k}] * a{k}.v[j]' for k in range(sources))};"
        for t in range(targets)
    )
    stores = " ".join(f"t{k}[i] = r{k};" for k in range(targets))
    return (
        f"""{PRELUDE}
struct alignas({PACK_BYTES}) Pack {{ {real} v[{width}]; }};
extern "C" __global__ void {name}(i64 count, const {real} *weights, u32 *flag, u64 kinds, u32 kind,
    {", ".join(params)})
{{
    {real} w[{targets * sources}];
    #pragma unroll
    for (int k = 0; k < {targets * sources}; ++k) w[k] = weights[k];
    u32 seen = 0;
    {LOOP} {{
        {loads}
        Pack {", ".join(f"r{k}" for k in range(targets))};
        #pragma unroll
        for (int j = 0; j < {width}; ++j) {{
            {marks}
{sums}
            if (bad(r0.v[j])) seen |= kind;
        }}
        {stores}
    }}
    if (seen) atomicOr(flag, seen);
}}
""",
        name,
    )


def move_source(source: str, target: str) -> tuple[str, str]:
    """Return the kernel that copies blocks of numbers from one pitch to another, cast, and several times over."""
    return (
        f"""{PRELUDE}
extern "C" __global__ void move(i64 count, i64 block, const {TYPES[source]} *from, i64 from_pitch,
                                {TYPES[target]} *to, i64 to_pitch, i64 copies, i64 copy_pitch)
{{
    {LOOP} {{
        const i64 outer = i / block, inner = i % block;
        const auto value = wide(from[outer * from_pitch + inner]);
        for (i64 k = 0; k < copies; ++k) put(&to[k * copy_pitch + outer * to_pitch + inner], value);
    }}
}}
""",
        "move",
    )


def combine_source(source: str, target: str) -> tuple[str, str]:
    """Return the kernel of guidance: null + scale * (given - null), the scale read from the device."""
    real = TYPES[target]
    return (
        f"""{PRELUDE}
extern "C" __global__ void combine(i64 count, i64 block, const {TYPES[source]} *given, const {TYPES[source]} *null,
                                   i64 from_pitch, {real} *to, i64 to_pitch, const {real} *scale)
{{
    const {real} by = *scale;
    {LOOP} {{
        const i64 outer = i / block, inner = i % block;
        const {real} other = ({real})wide(null[outer * from_pitch + inner]);
        to[outer * to_pitch + inner] = (({real})wide(given[outer * from_pitch + inner]) - other) * by + other;
    }}
}}
""",
        "combine",
    )


def clip_source(dtype: str) -> tuple[str, str]:
    """Return the kernel that limits numbers, and leaves NaN."""
    real = TYPES[dtype]
    return (
        f"""{PRELUDE}
extern "C" __global__ void clip(i64 count, {real} *x, {real} limit)
{{
    {LOOP} {{
        const {real} v = x[i];
        x[i] = v < -limit ? -limit : (v > limit ? limit : v);
    }}
}}
""",
        "clip",
    )


def learned_source(dtype: str) -> tuple[str, str]:
    """Return the kernel that scales noise by the deviation that the second part of the output stands for."""
    real = TYPES[dtype]
    return (
        f"""{PRELUDE}
extern "C" __global__ void learned(i64 count, i64 block, const {real} *second, i64 pitch, const {real} *from,
                                   {real} *to, {real} half, {real} shift, u32 variance, u32 *flag, u32 kind)
{{
    {LOOP} {{
        const {real} given = second[(i / block) * pitch + i % block];
        const {real} deviation = variance ? sqrt(given) : exp(given * half + shift);
        if (bad(deviation)) atomicOr(flag, kind);
        to[i] = from[i] * deviation;
    }}
}}
""",
        "learned",
    )


def threshold_source(dtype: str) -> tuple[str, str]:
    """Return the kernel of dynamic thresholding: one block a sample finds its quantile by radix selection.

    The magnitudes of floats are in the order of their bits, and NaN is above them all, as NumPy sorts it.
    """
    real, (bits, width) = TYPES[dtype], _BITS[dtype]
    return (
        f"""{PRELUDE}
typedef {bits} Bits;
union Word {{ {real} value; Bits bits; }};
__device__ inline Bits magnitude({real} v) {{ Word w; w.value = v; return w.bits & ((~(Bits)0) >> 1); }}
extern "C" __global__ void threshold(i64 count, {real} *all, i64 low, i64 high, {real} fraction, {real} most)
{{
    __shared__ u32 counts[256];
    __shared__ Bits prefix, above;
    __shared__ i64 rank, ties;
    __shared__ {real} limit;
    {real} *x = all + blockIdx.x * count;
    if (threadIdx.x == 0) {{ prefix = 0; above = ~(Bits)0; rank = low; }}
    __syncthreads();
    for (int shift = {width} - 8; shift >= 0; shift -= 8) {{
        for (u32 k = threadIdx.x; k < 256; k += blockDim.x) counts[k] = 0;
        __syncthreads();
        const Bits mask = shift + 8 < {width} ? (~(Bits)0) << (shift + 8) : 0;
        for (i64 i = threadIdx.x; i < count; i += blockDim.x) {{
            const Bits v = magnitude(x[i]);
            if ((v & mask) == prefix) atomicAdd(&counts[(u32)(v >> shift) & 255u], 1u);
        }}
        __syncthreads();
        if (threadIdx.x == 0) {{
            u32 k = 0;
            while (rank >= (i64)counts[k]) rank -= counts[k++];
            prefix |= (Bits)k << shift;
            ties = counts[k];
        }}
        __syncthreads();
    }}
    const bool tied = rank + (high - low) < ties;
    if (!tied)
        for (i64 i = threadIdx.x; i < count; i += blockDim.x) {{
            const Bits v = magnitude(x[i]);
            if (v > prefix) atomicMin(&above, v);
        }}
    __syncthreads();
    if (threadIdx.x == 0) {{
        Word lower, upper;
        lower.bits = prefix;
        upper.bits = tied ? prefix : above;
        {real} v = lower.value + (upper.value - lower.value) * fraction;
        if (v < 1) v = 1;
        limit = v > most ? most : v;
    }}
    __syncthreads();
    for (i64 i = threadIdx.x; i < count; i += blockDim.x) {{
        const {real} v = x[i];
        x[i] = (v < -limit ? -limit : (v > limit ? limit : v)) / limit;
    }}
}}
""",
        "threshold",
    )


def bytes_source() -> tuple[str, str]:
    """Return the kernel that copies a few bytes: the time of a step, from a table."""
    return (
        f"""{PRELUDE}
extern "C" __global__ void bytes(i64 count, const unsigned char *from, unsigned char *to)
{{
    {LOOP} to[i] = from[i];
}}
""",
        "bytes",
    )


def clear_source() -> tuple[str, str]:
    """Return the kernel that sets words to zero."""
    return (
        f"""{PRELUDE}
extern "C" __global__ void clear(i64 count, u32 *to)
{{
    {LOOP} to[i] = 0;
}}
""",
        "clear",
    )
