"""The one vocabulary of array dimensions that every annotation in the package uses.

Dimension names (jaxtyping strings):
    batch       rows of a batch: training samples, or guidance branches x samples
    sets        reference sets, each of one person: `people` consecutive ones for all rows, or for
                each row
    people      people that an image mixes, mostly 1
    refs        reference photos in a set
    rows        first rows of a batch: those that see references
    h w         height and width of a feature map or latent
    ref_h ref_w height and width of a reference latent, which is smaller
    H W         height and width of an image in pixels
    tokens      h*w of a feature map, seen as a sequence
    q k         query and key positions of an attention
    heads d     attention heads and channels of a head
    c           channels
    seen        channels that the denoiser sees of an image besides its noisy latent
    contexts    text contexts: `batch` (each row its own), or 1 (one shared by all rows)
    words text  tokens of a prompt, width of the text context
    _           a size that a block may change

Images are float in [-1, 1] (`Image`) or uint8 (`PixelImage`); latents are channels last.
"""

from typing import Any

from jaxtyping import Array, Float, Int, UInt8

Image = Float[Array, "batch H W 3"]
Latent = Float[Array, "batch h w c"]
FeatureMap = Float[Array, "batch _ _ _"]
ReferenceLatent = Float[Array, "sets refs ref_h ref_w c"]
ReferenceWeight = Float[Array, "sets refs"]
Strength = Float[Array, "rows people"]
Mask = Float[Array, "batch h w 1"]
ImageCondition = Float[Array, "batch h w seen"]
Tokens = Float[Array, "batch tokens c"]
TextContext = Float[Array, "contexts words text"]
Timestep = Int[Array, "batch"]
PerEvaluation = Any
"""Numbers with an entry for every time that a run asks the network: NumPy before the run, JAX in
it; a scalar for one of them."""
PixelImage = UInt8[Array, "H W 3"]
