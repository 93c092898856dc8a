"""Grids whose noise rises, as for encoding a sample, and what cannot run on them."""

from __future__ import annotations

from dpmrt.errors import OptionError
from dpmrt.solvers_np.grids.grid import Grid


def refuse_rising(grid: Grid, what: str, *, got: str, expected: object) -> None:
    """Refuse an option that adds noise, on a grid whose noise rises."""
    if grid.rises:
        raise OptionError(f"a grid whose noise rises takes no {what}", got=got, expected=expected)


def refuse_encoding(grid: Grid, solver: str) -> None:
    """Refuse to encode with a solver that always adds noise."""
    if grid.rises:
        raise OptionError(
            f"solver {solver!r} adds noise of its own, so it cannot encode",
            got="a grid whose noise rises",
            expected="a grid whose noise falls",
            fix="use solver 'ddim', or another without noise",
        )
