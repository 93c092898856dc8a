"""One file a family of solvers; the registry is all that knows them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dpmrt.solvers_np.solver import Solver
from dpmrt.solvers_np.solvers.ddim import DDIM
from dpmrt.solvers_np.solvers.ddpm import DDPM
from dpmrt.solvers_np.solvers.deis import DEIS
from dpmrt.solvers_np.solvers.dpm_multistep import DPM_SOLVER, DPM_SOLVER_PP, SDE_DPM_SOLVER, SDE_DPM_SOLVER_PP
from dpmrt.solvers_np.solvers.dpm_singlestep import (
    DPM_SOLVER_PP_S,
    DPM_SOLVER_PP_S_GRID,
    DPM_SOLVER_S,
    DPM_SOLVER_S_GRID,
    SDE_DPM_SOLVER_PP_S_GRID,
)
from dpmrt.solvers_np.solvers.dpmpp_2s import DPM_SOLVER_PP_2S_ANCESTRAL, DPM_SOLVER_PP_SDE
from dpmrt.solvers_np.solvers.euler import EULER
from dpmrt.solvers_np.solvers.euler_ancestral import EULER_ANCESTRAL
from dpmrt.solvers_np.solvers.flow import FLOW_EULER, FLOW_HEUN
from dpmrt.solvers_np.solvers.heun import HEUN, HEUN_ANCESTRAL
from dpmrt.solvers_np.solvers.ipndm import IPNDM
from dpmrt.solvers_np.solvers.kdpm2 import KDPM2, KDPM2_ANCESTRAL
from dpmrt.solvers_np.solvers.lcm import LCM
from dpmrt.solvers_np.solvers.lms import LMS
from dpmrt.solvers_np.solvers.pndm import PNDM
from dpmrt.solvers_np.solvers.sa_solver import SA_SOLVER
from dpmrt.solvers_np.solvers.score_sde import PREDICTOR_CORRECTOR, REVERSE_DIFFUSION
from dpmrt.solvers_np.solvers.tcd import TCD
from dpmrt.solvers_np.solvers.unipc import UNIPC

SOLVERS: Mapping[str, Solver] = MappingProxyType(
    {
        "ddpm": DDPM,
        "ddim": DDIM,
        "dpmsolver": DPM_SOLVER,
        "dpmsolver++": DPM_SOLVER_PP,
        "sde-dpmsolver": SDE_DPM_SOLVER,
        "sde-dpmsolver++": SDE_DPM_SOLVER_PP,
        "dpmsolver-singlestep": DPM_SOLVER_S,
        "dpmsolver++singlestep": DPM_SOLVER_PP_S,
        "dpmsolver-singlestep-grid": DPM_SOLVER_S_GRID,
        "dpmsolver++singlestep-grid": DPM_SOLVER_PP_S_GRID,
        "sde-dpmsolver++singlestep-grid": SDE_DPM_SOLVER_PP_S_GRID,
        "lcm": LCM,
        "tcd": TCD,
        "flow-euler": FLOW_EULER,
        "flow-heun": FLOW_HEUN,
        "reverse-diffusion": REVERSE_DIFFUSION,
        "predictor-corrector": PREDICTOR_CORRECTOR,
        "euler": EULER,
        "heun": HEUN,
        "lms": LMS,
        "kdpm2": KDPM2,
        "euler-ancestral": EULER_ANCESTRAL,
        "heun-ancestral": HEUN_ANCESTRAL,
        "kdpm2-ancestral": KDPM2_ANCESTRAL,
        "dpmsolver++2s-ancestral": DPM_SOLVER_PP_2S_ANCESTRAL,
        "dpmsolver++sde": DPM_SOLVER_PP_SDE,
        "unipc": UNIPC,
        "deis": DEIS,
        "sa-solver": SA_SOLVER,
        "pndm": PNDM,
        "ipndm": IPNDM,
    }
)
