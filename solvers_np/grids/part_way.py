"""Starting part-way, as image-to-image does: the state is an image to which only some of the noise was added."""

from __future__ import annotations

from dpmrt.errors import OptionError
from dpmrt.solvers_np.grids.grid import Grid


def part_way(grid: Grid, strength: float) -> Grid:
    """Keep the last int(len(grid) * strength) intervals, as diffusers' pipelines do; all of them at strength 1."""
    if not 0 < strength <= 1:
        raise OptionError("strength is out of range", got=strength, expected="0 < strength <= 1")
    kept = min(int(len(grid) * strength), len(grid))
    if kept == 0:
        raise OptionError(
            "strength leaves no step", got=f"{strength:g} of {len(grid)} steps", fix="ask for more steps or strength"
        )
    if kept == len(grid):
        return grid
    return Grid(grid.start.part(-kept), grid.end.part(-kept), grid.between, schedule=grid.schedule)
