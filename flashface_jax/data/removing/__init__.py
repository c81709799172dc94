"""Taking people and photos out of a dataset."""
