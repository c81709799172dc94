"""The whole method in miniature: `make demo`."""
