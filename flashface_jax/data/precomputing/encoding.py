"""The frozen networks over a batch of photos; nothing else in `data` knows of the model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from flashface_jax.common.compilation import compiler_options
from flashface_jax.common.devices import images_mesh
from flashface_jax.data.loading.encoders import ENCODERS, encoders_sha256
from flashface_jax.data.precomputing.preparation import Prepared
from flashface_jax.models.autoencoder.autoencoder import (
    encode_crops,
    encode_without_face,
    from_pixels,
)
from flashface_jax.models.blocks import Compute
from flashface_jax.models.network import Params
from flashface_jax.weights.directory import WeightsDirectory
from flashface_jax.weights.system import System, SystemConfig, build_system

Encoded = dict[str, jax.Array]
INPUTS = ("target", "face_mask", "tokens", "crop")


@dataclass(frozen=True)
class Encoders:
    """Autoencoder and text tower, ready to run on this host's devices.

    Attributes:
        params: of both.
        mesh: devices that share a batch.
        encode: the compiled program.
        context: that of prompts.
    """

    params: dict[str, Params]
    mesh: Mesh
    encode: Callable[..., Encoded]
    context: Callable[..., jax.Array]

    @classmethod
    def of(
        cls,
        weights: WeightsDirectory,
        config: SystemConfig,
        precision: str,
        devices: Sequence[jax.Device],
    ) -> "Encoders":
        """Read the networks of a weights directory.

        Args:
            weights: the directory.
            config: its system; image sizes may be others, and whether FlashFace inpaints.
            precision: dtype that the networks compute in.
            devices: that share a batch.

        Raises:
            WeightsError: the directory lacks a network, or has another than the configuration.
        """
        system = build_system(config, Compute(jnp.dtype(precision)))
        mesh = images_mesh(devices)
        everywhere = NamedSharding(mesh, PartitionSpec())
        params = {
            name: jax.device_put(weights.params(name, system.parts()[name]), everywhere)
            for name in ENCODERS
        }
        encode = _make_encode(system, mesh, inpaints=config.flashface.inpaints)
        context = jax.jit(partial(_context, system), compiler_options=compiler_options())
        return cls(params, mesh, encode, context)

    @cached_property
    def sha256(self) -> str:
        """Hash of the parameters."""
        return encoders_sha256(self.params)

    def prompt(self, tokens: np.ndarray) -> np.ndarray:
        """Context of one prompt, (words, channels)."""
        return np.asarray(self.context(self.params, tokens)[0])

    def __call__(self, batch: Prepared, rows: int) -> Encoded:
        """Begin to encode a batch; it is filled up to `rows`, so that all have one shape."""
        place = NamedSharding(self.mesh, PartitionSpec(self.mesh.axis_names))
        filled = np.minimum(np.arange(rows), len(batch["target"]) - 1)
        inputs = {name: jax.device_put(batch[name][filled], place) for name in INPUTS}
        return self.encode(self.params, inputs)


def _make_encode(system: System, mesh: Mesh, *, inpaints: bool) -> Callable[..., Encoded]:
    """Return the jitted program from prepared photos to what is stored of them."""
    rows = PartitionSpec(mesh.axis_names)

    def encode(params: dict[str, Params], batch: dict[str, Array]) -> Encoded:
        autoencoder = system.autoencoder.bind(params["autoencoder"])
        image = from_pixels(batch["target"])
        posterior = autoencoder.scaled_posterior(image)
        made = {
            "target_mean": posterior.mean,
            "target_log_variance": posterior.log_variance,
            "face_mask": batch["face_mask"],
            "context": _context(system, params, batch["tokens"]),
            "reference": encode_crops(autoencoder, batch["crop"][:, None])[:, 0],
        }
        if inpaints:
            face_mask = batch["face_mask"].astype(jnp.float32)
            made["without_face"] = encode_without_face(autoencoder, image, face_mask)
        return made

    # Nothing passes between devices: each encodes its own photos.
    spread = jax.shard_map(
        encode, mesh=mesh, in_specs=(PartitionSpec(), rows), out_specs=rows, check_vma=False
    )
    return jax.jit(spread, compiler_options=compiler_options())


def _context(system: System, params: dict[str, Params], tokens: Array) -> Array:
    return system.text_tower.bind(params["text_tower"])(tokens)
