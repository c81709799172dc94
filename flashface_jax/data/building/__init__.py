"""From a manifest to the dataset: photos examined one by one, kept in order, written as shards."""
