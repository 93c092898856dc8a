"""The table of docs/solvers.md: every solver, with the order that it shows on a problem with a known solution.

python benchmarks/solver_table.py            print it
python benchmarks/solver_table.py --write    put it into docs/solvers.md
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/solvers_np"))

from measure import cases, is_stochastic, measured_order  # noqa: E402

from dpmrt.solvers_np import SOLVERS, Case  # noqa: E402

PAGE = ROOT / "docs/solvers.md"
BEGIN, END = "<!-- table: python benchmarks/solver_table.py --write -->", "<!-- end of table -->"
HEADS = ("solver", "paper", "calls a step", "noise", "options", "order", "measured", "diffusers")


def table() -> str:
    lines = ["| " + " | ".join(HEADS) + " |", "|" + "---|" * len(HEADS)]
    before = None
    for name, case in cases():
        solver = SOLVERS[name]
        about = (f"`{name}`", solver.paper, solver.calls, solver.noise) if name != before else ("", "", "", "")
        classes = ", ".join(c.removesuffix("Scheduler") for c in solver.diffusers) if name != before else ""
        lines.append("| " + " | ".join((*about, _options(case), *_orders(name, case), classes)) + " |")
        before = name
    for name, solver in SOLVERS.items():
        if not solver.cases:
            classes = ", ".join(c.removesuffix("Scheduler") for c in solver.diffusers)
            row = (f"`{name}`", solver.paper, solver.calls, solver.noise, "", "none", "", classes)
            lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def _options(case: Case) -> str:
    return ", ".join(f"{key}={value}" for key, value in case.options.items())


def _orders(name: str, case: Case) -> tuple[str, str]:
    weak = " (weak)" if is_stochastic(name, case) else ""
    return f"{case.order:g}{weak}", f"{measured_order(name, case):.2f}"


def put(page: str, made: str) -> str:
    """Return the page with the table between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


if __name__ == "__main__":
    made = table()
    if "--write" in sys.argv:
        PAGE.write_text(put(PAGE.read_text(), made))
    print(made)
