"""From photos to reference crops, and from face boxes to position masks."""
