"""The errors that dpmrt raises on purpose.

Each says what is wrong, what arrived, what was expected and what to do next, so that a caller can print it
as it is. The four parts stay available as attributes.
"""

from __future__ import annotations

from typing import Any


class DpmrtError(Exception):
    """Base of every error that dpmrt raises on purpose.

    >>> print(OptionError("steps is out of range", got=0, expected="1 to 1000", fix="pass steps=20"))
    steps is out of range
      got:      0
      expected: 1 to 1000
      fix:      pass steps=20
    """

    def __init__(self, what: str, *, got: object = None, expected: object = None, fix: str | None = None) -> None:
        self.what = what
        self.got = got
        self.expected = expected
        self.fix = fix
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        for label, value in (("got", self.got), ("expected", self.expected), ("fix", self.fix)):
            if value is not None:
                # A value of several lines stays in its column.
                lines.append(f"  {label + ':':<9} " + str(value).replace("\n", "\n" + " " * 12))
        return "\n".join(lines)


class OptionError(DpmrtError, ValueError):
    """An option or argument that cannot be honoured."""


class PlanError(DpmrtError, ValueError):
    """A StepPlan that is inconsistent, or a file that does not hold one."""


class ArrayError(DpmrtError, ValueError):
    """An array of the wrong shape, dtype or contents."""


class NonFiniteError(DpmrtError, ArithmeticError):
    """NaN or infinity where numbers were expected."""


class BundleError(DpmrtError):
    """A bundle folder that is missing something, or holds something it should not."""


class ManifestError(BundleError):
    """A manifest that does not follow the schema."""


class IntegrityError(BundleError):
    """A file whose contents are not those the manifest names."""


class BackendError(DpmrtError, RuntimeError):
    """An inference library that is absent, or that refuses the network."""


class MissingExtraError(DpmrtError, ImportError):
    """An optional dependency that the call needs and the environment lacks."""


class OutputError(DpmrtError, OSError):
    """A result that could not be written."""


class ExportError(DpmrtError, RuntimeError):
    """A network that could not be turned into a bundle."""


class TraceError(DpmrtError, ValueError):
    """A scheduler object that cannot be compiled to a plan, because it is not linear or lacks what a plan needs."""


class VerificationError(DpmrtError):
    """A bundle whose numbers are not those of the network it came from."""


class SamplingCancelled(DpmrtError):
    """Sampling was stopped by its callback."""


class PartialError(DpmrtError):
    """A run that ended before its end: `samples` is the state at the time `t`, `report` how it came there."""

    def __init__(
        self,
        what: str,
        *,
        samples: Any,
        t: float,
        report: Any,
        got: object = None,
        expected: object = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(what, got=got, expected=expected, fix=fix)
        self.samples = samples
        self.t = t
        self.report = report


class BudgetError(PartialError, RuntimeError):
    """The network calls that a run was allowed did not suffice."""


class ToleranceError(PartialError, ArithmeticError):
    """A tolerance that cannot be met."""


class DivergedError(PartialError, NonFiniteError):
    """NaN or infinity that came up in a run."""
