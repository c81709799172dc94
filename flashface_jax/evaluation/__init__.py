"""How well an image keeps the identity, follows the prompt, and looks real."""
