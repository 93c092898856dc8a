"""One file a family of solvers; the registry is all that knows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from dpmrt.solvers_np.plan import StepPlan
from dpmrt.solvers_np.solvers.ddim import ddim
from dpmrt.solvers_np.solvers.ddpm import ddpm
from dpmrt.solvers_np.solvers.dpm_multistep import dpmsolver, dpmsolverpp, sde_dpmsolver, sde_dpmsolverpp

SOLVERS: Mapping[str, Callable[..., StepPlan]] = MappingProxyType(
    {
        "ddpm": ddpm,
        "ddim": ddim,
        "dpmsolver": dpmsolver,
        "dpmsolver++": dpmsolverpp,
        "sde-dpmsolver": sde_dpmsolver,
        "sde-dpmsolver++": sde_dpmsolverpp,
    }
)
