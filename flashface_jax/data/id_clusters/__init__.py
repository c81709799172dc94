"""The TFDS dataset `id_clusters`: photos of people, sorted by who they show."""

from flashface_jax.data.id_clusters.id_clusters_dataset_builder import Builder

__all__ = ["Builder"]
