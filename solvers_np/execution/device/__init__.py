"""The executor of plans on a CUDA device, through CuPy or whatever looks like it. Nothing here imports CuPy."""
