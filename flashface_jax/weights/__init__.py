"""A directory of weights that describes itself, and the networks that it describes."""
