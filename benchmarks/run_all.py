"""Every benchmark, one after another. Each also runs alone and has its own --help.

large_export.py is left out: it takes 15 minutes and as many gigabytes of disk; quality_per_call.py as long;
cpp_start.py needs the C++ runtime to be built.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = (
    "host_loop.py",
    "cpp_step.py",
    "solver_steps.py",
    "trajectory.py",
    "cifar_parity.py",
    "overhead.py",
    "cold_start.py",
    "quality.py",
    "half_precision.py",
    "ode_error.py",
    "adaptive.py",
)


def main() -> None:
    for script in SCRIPTS:
        subprocess.run([sys.executable, str(Path(__file__).with_name(script))], check=True)


if __name__ == "__main__":
    main()
