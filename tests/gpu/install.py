"""What `make gpu-test` installs beside the development tools: CuPy for the driver that is here."""

from __future__ import annotations

import subprocess
import sys

from dpmrt.runtime.gpu import current_gpu, why_no_gpu


def main() -> int:
    gpu = current_gpu()
    if gpu is None:
        print(f"no GPU to test on: {why_no_gpu()}", file=sys.stderr)
        return 1
    major = gpu.cuda.partition(".")[0]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    print(f"{gpu}: installing CuPy and TensorRT for CUDA {major}")
    if code := subprocess.call([*pip, f"cupy-cuda{major}x[ctk]>=13"]):
        return code
    # It comes from its maker's own index, which is not everywhere to be reached; TensorRT-RTX is there without it.
    if subprocess.call([*pip, f"tensorrt-cu{major}"]):
        print("TensorRT cannot be installed here; its tests are skipped, and say so", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
