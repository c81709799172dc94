"""What is seen of a run: metrics, pictures, traces, speed."""
