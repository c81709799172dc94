"""Attention with its log-sum-exp: reference attention, and its backends by device."""
