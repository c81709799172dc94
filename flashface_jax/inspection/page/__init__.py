"""The page and the datasheet that show what was measured."""
