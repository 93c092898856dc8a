"""dpmrt: trained diffusion networks, sampled without torch."""

__version__ = "0.1.0"
