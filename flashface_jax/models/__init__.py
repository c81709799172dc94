"""The networks: pure functions of their inputs, channels last."""
