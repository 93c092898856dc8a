"""The kernels' source through the real CUDA compiler, which needs no GPU."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dpmrt.solvers_np.execution.device import langevin_source, source
from dpmrt.solvers_np.execution.device.kernels import _THREADS

NVCC = shutil.which("nvcc")
#: the registers of a multiprocessor, of which a block may not want more
_REGISTERS = 65_536


def kernels() -> list[tuple[str, str]]:
    """Return source and name of every kernel there is, in every type."""
    found = [source.bytes_source(), source.clear_source()]
    for dtype in ("float32", "float64"):
        found += [source.clip_source(dtype), source.learned_source(dtype), source.threshold_source(dtype)]
        found += [
            source.update_source(targets, sources, dtype) for targets, sources in ((1, 1), (2, 4), (3, 9), (4, 17))
        ]
        found += [source.combine_source(origin, dtype) for origin in source.TYPES]
        found += [source.rescale_source(origin, dtype) for origin in source.TYPES]
        found += [langevin_source.norms_source(dtype), langevin_source.step_source(dtype)]
        found += [langevin_source.scale_source(dtype)]
    found += [source.move_source(*pair) for pair in itertools.product(source.TYPES, repeat=2)]
    return found


@pytest.mark.skipif(NVCC is None, reason="no nvcc")
def test_every_kernel_compiles_and_fits_its_block(tmp_path: Path) -> None:
    """As one file, each in a namespace of its own, as CuPy compiles them: C++17, denormals flushed."""
    text = [source.PRELUDE]
    for number, (code, _) in enumerate(kernels()):
        body = code.replace(source.PRELUDE, "").replace('extern "C" ', "")
        text.append(f"namespace k{number} {{\n{body}\n}}")
    (tmp_path / "all.cu").write_text("\n".join(text))
    command = [NVCC, "-std=c++17", "-ftz=true", "-arch=sm_75", "-Xptxas", "-v", "-cubin", "-o", "all.cubin", "all.cu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    used = re.findall(r"Compiling entry function '(\w+)'.*?Used (\d+) registers", done.stderr, re.DOTALL)
    assert len(used) == len(kernels())
    for name, registers in used:
        threads = source.WIDE_BLOCK if "threshold" in name or "rescale" in name else _THREADS
        # They are handed out by the warp, in units of eight a thread.
        assert -(-int(registers) // 8) * 8 * threads <= _REGISTERS, name
    assert "0 bytes spill stores" in done.stderr
