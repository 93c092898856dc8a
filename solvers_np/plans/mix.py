"""Mix: a weighted sum of states and buffered quantities, so that solvers are written as their papers write them."""

from __future__ import annotations

from typing import NamedTuple

#: a weight this small beside the terms that made it is what their cancelling left
_CANCELLED = 1e-14


class Symbol(NamedTuple):
    """What a mix is made of: the state before a row ("state"), or what its call gave ("raw" or "quantity")."""

    kind: str
    row: int


class Mix:
    """A weighted sum. Mixes add up, and are scaled by numbers; terms that cancel vanish.

    >>> x, q = Mix.of(Symbol("state", 0)), Mix.of(Symbol("quantity", 0))
    >>> (2 * (x - q) + 2 * q).weights
    {Symbol(kind='state', row=0): 2.0}
    """

    __slots__ = ("_terms",)

    def __init__(self, terms: dict[Symbol, tuple[float, float]] | None = None) -> None:
        # each weight stands beside the sum of the magnitudes that went into it
        self._terms = terms or {}

    @staticmethod
    def of(symbol: Symbol) -> Mix:
        """Return one thing with weight one."""
        return Mix({symbol: (1.0, 1.0)})

    @property
    def weights(self) -> dict[Symbol, float]:
        """Return the weight of each term."""
        return {s: w for s, (w, _) in self._terms.items()}

    def __getitem__(self, symbol: Symbol) -> float:
        return self._terms.get(symbol, (0.0, 0.0))[0]

    def __add__(self, other: Mix) -> Mix:
        terms = dict(self._terms)
        for symbol, (weight, size) in other._terms.items():
            mine, bulk = terms.get(symbol, (0.0, 0.0))
            total, most = mine + weight, bulk + size
            if not abs(total) <= _CANCELLED * most:  # NaN stays, for the plan to refuse
                terms[symbol] = (total, most)
            else:
                terms.pop(symbol, None)
        return Mix(terms)

    def __mul__(self, factor: float) -> Mix:
        if factor == 0:
            return Mix()
        return Mix({s: (factor * w, abs(factor) * m) for s, (w, m) in self._terms.items()})

    __rmul__ = __mul__

    def __neg__(self) -> Mix:
        return self * -1.0

    def __sub__(self, other: Mix) -> Mix:
        return self + other * -1.0

    def __truediv__(self, divisor: float) -> Mix:
        return self * (1.0 / divisor)

    def without(self, symbol: Symbol) -> Mix:
        """Return the sum of the other terms."""
        return Mix({s: term for s, term in self._terms.items() if s != symbol})
