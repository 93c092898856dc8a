"""Starting part-way, as image-to-image does: the state is an image to which only some of the noise was added."""

from __future__ import annotations

from dpmrt.errors import OptionError
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.options import finite_number


def part_way(grid: Grid, strength: float) -> Grid:
    """Keep the last int(len(grid) * strength) intervals, as diffusers' pipelines do; all of them at strength 1."""
    kept = steps_kept(len(grid), strength)
    if kept == len(grid):
        return grid
    return Grid(grid.start.part(-kept), grid.end.part(-kept), grid.between, schedule=grid.schedule)


def steps_kept(steps: int, strength: float) -> int:
    """Return how many of the steps a strength keeps.

    >>> steps_kept(10, 0.75)
    7
    """
    number = finite_number(strength)
    if number is None or not 0 < number <= 1:
        raise OptionError("strength is out of range", got=repr(strength), expected="0 < strength <= 1")
    kept = min(int(steps * number), steps)
    if kept == 0:
        raise OptionError(
            "strength leaves no step", got=f"{number:g} of {steps} steps", fix="ask for more steps or strength"
        )
    return kept
