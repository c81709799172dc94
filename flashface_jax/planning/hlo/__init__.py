"""Reading a compiled program: operations, kernels, loops, collectives."""
