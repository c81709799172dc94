"""Where a run's metrics and pictures go: a file each, and the list of them in `registry.py`."""
