"""Looking at a built dataset: numbers, contact sheets, samples as the model sees them, a page."""
