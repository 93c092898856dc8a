"""DPM-Solver-12 and -23: solvers without a grid, which choose their steps by an estimate of the error."""

from dpmrt.solvers_np.adaptive.driver import ADAPTIVE, Adaptive, run_adaptive
from dpmrt.solvers_np.adaptive.ends import start_scale
from dpmrt.solvers_np.adaptive.options import AdaptiveOptions
from dpmrt.solvers_np.adaptive.report import AdaptiveReport

__all__ = ["ADAPTIVE", "Adaptive", "AdaptiveOptions", "AdaptiveReport", "run_adaptive", "start_scale"]
