"""The sigmas, times and tables that diffusers computes from a config."""
