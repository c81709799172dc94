"""FlashFace in JAX: new images of a person from a few photos and a prompt (arXiv 2403.17008)."""
