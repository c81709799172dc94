"""The Beam pipeline around the judgements: collecting, measuring, choosing, writing."""
