"""The probability-flow ODE: where it goes at each time, and SciPy's solvers that follow it."""
