"""How a run goes: data, starting state, loop, checkpoints, several processes."""
