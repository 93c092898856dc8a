"""The order of a multistep solver, held against the number of steps."""

from __future__ import annotations

from dpmrt.errors import OptionError
from dpmrt.solvers_np.options import whole

#: above this, weights of both signs are so large that rounding grows from step to step
MOST_ORDER = 6


def order_within(
    order: int | None, steps: int, *, usual: int = 2, most: int = MOST_ORDER, option: str = "order"
) -> int:
    """Return the order asked for, which the steps have to suffice for; unless given, `usual` or as many as suffice.

    >>> order_within(None, 1), order_within(3, 10)
    (1, 3)
    """
    if order is None:
        return min(usual, steps)
    order = whole(option, order, 1, most)
    if order > steps:
        raise OptionError(
            "order is beyond the steps",
            got=f"{option}={order} with {steps} {'step' if steps == 1 else 'steps'}",
            expected=f"an order from 1 to {steps}",
            fix=f"ask for more steps, or leave out {option}",
        )
    return order
