"""What is measured of a dataset: its photos, clusters, samples and reading speed."""
