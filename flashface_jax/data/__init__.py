"""Datasets of identities and the input pipeline."""
