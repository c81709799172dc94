"""What a compiled program would take on accelerators that are not at hand."""
