"""Stable Diffusion 1.x, in either of its layouts, as what FlashFace's training starts from."""
