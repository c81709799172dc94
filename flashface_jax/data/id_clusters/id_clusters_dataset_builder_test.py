"""TFDS' own test of the builder, which needs TensorFlow.

pip install tensorflow dill
python flashface_jax/data/id_clusters/id_clusters_dataset_builder_test.py
"""

import tensorflow_datasets as tfds

from flashface_jax.data.id_clusters.id_clusters_dataset_builder import Builder


class IdClustersTest(tfds.testing.DatasetBuilderTestCase):
    """Builds the dataset of the three drawn photos in dummy_data."""

    DATASET_CLASS = Builder
    SPLITS = {"train": 3}  # noqa: RUF012  (as TFDS declares it)

    def _assertAsDataset(self, builder: tfds.core.DatasetBuilder) -> None:  # noqa: N802
        """Reads every record; as a data source, since TFDS makes no tf.data of ArrayRecord."""
        for split, photos in self.SPLITS.items():
            records = list(builder.as_data_source(split))
            self.assertLen(records, photos)
            for record in records:
                self.assertEqual(record["image"].shape, (64, 64, 3))
                self.assertTrue(record["has_landmarks"])


if __name__ == "__main__":
    tfds.testing.test_main()
