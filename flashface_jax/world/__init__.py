"""A built-in world of drawn people, to train on and to test with; nothing is downloaded.

An `Identity` holds what identifies a person, `PhotoAttributes` all that varies between photos.
`render` draws the one as the other says, `caption` says in words what varies, and
`SyntheticWorld` samples any number of both from a seed. Take a photo's attributes and change some
with `dataclasses.replace` to draw the right answer for a prompt that contradicts the references.
"""

from flashface_jax.world.attributes import Framing, PhotoAttributes
from flashface_jax.world.captions import VOCABULARY, caption
from flashface_jax.world.drawing.rendering import Rendering, render
from flashface_jax.world.identity import Identity, Mark
from flashface_jax.world.world import Photo, SyntheticWorld

__all__ = [
    "VOCABULARY",
    "Framing",
    "Identity",
    "Mark",
    "Photo",
    "PhotoAttributes",
    "Rendering",
    "SyntheticWorld",
    "caption",
    "render",
]
