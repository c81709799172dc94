"""What is asked for -> a collated batch -> the compiled program -> images."""
