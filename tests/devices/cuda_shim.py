"""Compiles the CUDA source of kernels as C++ for the host, so that the very text that a GPU gets is run."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

COMPILER = shutil.which("g++")

_SHIM = r"""
#include <cmath>
#include <atomic>
#include <thread>
#include <vector>
#include <condition_variable>
#include <mutex>
#define DPMRT_SHIM
#define __device__
#define __global__
#define __shared__ static
struct Dim { unsigned x, y, z; };
static thread_local Dim blockIdx, threadIdx, blockDim, gridDim;
using std::sqrt; using std::exp;
struct half16 { _Float16 value; };
static inline float wide(half16 h) { return (float)h.value; }
static inline void put(half16 *to, float f) { to->value = (_Float16)f; }
static inline void put(half16 *to, double f) { to->value = (_Float16)(float)f; }
template <typename T> static T atomicOr(T *p, T v) { return __atomic_fetch_or(p, v, __ATOMIC_SEQ_CST); }
template <typename T> static T atomicAdd(T *p, T v) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }
template <typename T> static T atomicMin(T *p, T v) {
    T old = __atomic_load_n(p, __ATOMIC_SEQ_CST);
    while (old > v && !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {}
    return old;
}
struct Gate {
    std::mutex lock; std::condition_variable change; unsigned count, waiting = 0, round = 0;
    explicit Gate(unsigned n) : count(n) {}
    void wait() {
        std::unique_lock<std::mutex> held(lock);
        const unsigned mine = round;
        if (++waiting == count) { waiting = 0; ++round; change.notify_all(); return; }
        change.wait(held, [&] { return round != mine; });
    }
};
static Gate *gate;
static void __syncthreads() { gate->wait(); }
"""


@functools.lru_cache(maxsize=1)
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="dpmrt-shim-"))


@functools.lru_cache(maxsize=512)
def compile_kernel(code: str, name: str) -> Any:
    """Return launch(grid, block, args) for one kernel. Threads that meet at a barrier are real ones, four of them."""
    assert COMPILER is not None
    signature = re.search(rf"__global__ void {name}\((.*?)\)\s*\{{", code, re.S)
    assert signature, f"no kernel {name}"
    declared = [p.strip() for p in signature.group(1).split(",") if p.strip()]
    kinds = [re.sub(r"\w+$", "", p).strip() for p in declared]
    values = ", ".join(f"*({kind} *)args[{k}]" for k, kind in enumerate(kinds))
    meets = "__syncthreads()" in code
    body = (
        f"""
    const unsigned threads = 4;
    for (unsigned b = 0; b < grid; ++b) {{
        Gate here(threads); gate = &here;
        std::vector<std::thread> all;
        for (unsigned t = 0; t < threads; ++t) all.emplace_back([&, t] {{
            gridDim = {{grid, 1, 1}}; blockDim = {{threads, 1, 1}}; blockIdx = {{b, 0, 0}}; threadIdx = {{t, 0, 0}};
            {name}({values});
        }});
        for (auto &one : all) one.join();
    }}"""
        if meets
        else f"""
    gridDim = {{grid, 1, 1}}; blockDim = {{block, 1, 1}};
    for (unsigned b = 0; b < grid; ++b)
        for (unsigned t = 0; t < block; ++t) {{
            blockIdx = {{b, 0, 0}}; threadIdx = {{t, 0, 0}};
            {name}({values});
        }}"""
    )
    text = f'{_SHIM}\n{code}\nextern "C" void launch(unsigned grid, unsigned block, void **args) {{{body}\n}}\n'
    target = _folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.so"
    command = [
        COMPILER,
        "-O1",
        "-w",
        "-std=c++17",
        "-shared",
        "-fPIC",
        "-pthread",
        "-x",
        "c++",
        "-",
        "-o",
        str(target),
    ]
    done = subprocess.run(command, input=text, text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    launch = ctypes.CDLL(str(target)).launch

    def run(grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> None:
        assert len(args) == len(kinds), f"{name} takes {len(kinds)} arguments, and got {len(args)}"
        sizes = [_size(kind) for kind in kinds]
        for arg, kind, size in zip(args, kinds, sizes):
            assert arg.dtype.itemsize == size, f"{name}: {arg.dtype} for {kind}"
            if kind == "float" or kind == "double":
                assert arg.dtype.kind == "f", f"{name}: {arg.dtype} for {kind}"
        cells = [ctypes.create_string_buffer(arg.tobytes(), arg.dtype.itemsize) for arg in args]
        pointers = (ctypes.c_void_p * len(cells))(*(ctypes.addressof(cell) for cell in cells))
        launch(grid[0], block[0], pointers)

    return run


def _size(kind: str) -> int:
    if "*" in kind or kind in ("i64", "u64", "double"):
        return 8
    return {"u32": 4, "float": 4}[kind]
