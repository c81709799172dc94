"""Noise schedule, guidance, solver, the sampling loop and the training loss."""
