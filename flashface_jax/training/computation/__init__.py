"""What a run computes, and where: batch, step, optimizer, layout over devices."""
