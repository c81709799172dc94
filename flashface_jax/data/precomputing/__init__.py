"""From photos of a dataset to latents and contexts: prepared, encoded, written, resumed."""
