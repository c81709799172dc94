"""Conversion between PyTorch checkpoints and this project's directories."""
