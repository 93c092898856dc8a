"""The executor of plans in NumPy."""
