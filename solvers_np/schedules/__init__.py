"""Noise schedules: how much signal and noise a state holds at each time."""
