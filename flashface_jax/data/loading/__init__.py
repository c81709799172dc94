"""From a built dataset to batches: random draws, decoding, the Grain pipeline."""
