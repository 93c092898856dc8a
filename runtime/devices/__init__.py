"""What the runtime needs of a CUDA device: CuPy, its memory, and the network as the device's executor sees it."""
