"""How a run lies on several devices and processes."""
