"""From tokens and face crops to images: encode, sample and decode as one compiled program."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, UInt8, UInt32

from flashface_jax.common.compilation import compiler_options
from flashface_jax.common.devices import IMAGES, images_mesh
from flashface_jax.common.shape_checks import checked, require
from flashface_jax.common.shapes import ImageCondition, Latent, Mask, ReferenceWeight, Strength
from flashface_jax.diffusion.sampling import (
    Conditioning,
    KnownImage,
    Plan,
    ReferenceLatents,
    ReferenceTrack,
    SamplingState,
    advance,
    start,
    track_references,
)
from flashface_jax.diffusion.schedule import Prediction
from flashface_jax.models.autoencoder.autoencoder import (
    Autoencoder,
    encode_crops,
    from_pixels,
    to_pixels,
)
from flashface_jax.models.autoencoder.tiled_decoding import decode_in_tiles
from flashface_jax.models.network import Params
from flashface_jax.weights.system import System

EACH, WHOLE = PartitionSpec(IMAGES), PartitionSpec()


@struct.dataclass
class InpaintingBatch:
    """Images of which a part is painted anew.

    Attributes:
        images: pixels at the size to generate.
        repaint_pixels: 1 where pixels are unknown.
        repaint: the same on the latents' grid.
    """

    images: UInt8[Array, "batch H W 3"]
    repaint_pixels: Float[Array, "batch H W 1"]
    repaint: Mask


@struct.dataclass
class RequestBatch:
    """A batch of images to make.

    Attributes:
        tokens: prompt of each image.
        negative_tokens: the negative prompt, shared.
        references: upright face crops: the sets of one image for the whole batch, or of every
            image.
        reference_weight: how often each reference counts; 0 where there is none.
        person_share: how much each person counts, ones for a single one; a row for all images, or
            one an image.
        face_mask: where each image's face goes; zeros for anywhere.
        seeds: seed of each image; an image depends on no other's.
        inpainting: images to paint into, or None.
        track: features of the references at every evaluation, computed before; None to compute
            them.
    """

    tokens: Int[Array, "batch words"]
    negative_tokens: Int[Array, "1 words"]
    references: UInt8[Array, "sets refs R R 3"]
    reference_weight: ReferenceWeight
    person_share: Strength
    face_mask: Mask
    seeds: UInt32[Array, " batch"]
    inpainting: InpaintingBatch | None = None
    track: ReferenceTrack | None = None


SHARED = ("negative_tokens", "context", "index")
OF_PEOPLE = ("references", "reference_weight", "person_share", "track")


def request_specs(request: RequestBatch, images: PartitionSpec = EACH) -> list[PartitionSpec]:
    """How a request lies on the mesh, leaf by leaf: what each image has its own of is spread."""
    return _specs(request, _has_own_people(request), images)


def _has_own_people(request: RequestBatch) -> bool:
    return len(request.person_share) == len(request.tokens) > 1


def _specs(tree: Any, own_people: bool, images: PartitionSpec = EACH) -> list[PartitionSpec]:
    """How a request, or what is made of it, lies on the mesh."""

    def spec(path: tuple[Any, ...]) -> PartitionSpec:
        names = [getattr(key, "name", None) for key in path]
        shared = any(name in SHARED for name in names)
        shared |= any(name in OF_PEOPLE for name in names) and not own_people
        return PartitionSpec() if shared else images

    # A list, as these trees hold arrays and nothing else.
    return [spec(path) for path, _ in jax.tree.leaves_with_path(tree)]


@struct.dataclass
class SamplingRun:
    """Images in the making: what they show, and where they stand."""

    conditioning: Conditioning
    state: SamplingState


@dataclass(frozen=True)
class Sampler:
    """The three parts of making images, as pure functions of parameters and data.

    Attributes:
        system: the networks.
        prediction: what the denoiser's output means.
        tile: side, in latent positions, of the tiles that images are decoded in, for less memory;
            0 for whole images.
    """

    system: System
    prediction: Prediction
    tile: int = 0

    @checked()
    def begin(self, params: dict[str, Params], request: RequestBatch) -> SamplingRun:
        """Encode texts and references, and draw the noise.

        Raises:
            ValueError: an array has a shape that does not fit the others or the networks.
            TypeError: an array has another dtype.
        """
        _check_people(request)
        autoencoder = self.system.autoencoder.bind(params["autoencoder"])
        text_tower = self.system.text_tower.bind(params["text_tower"])
        model = self.system.flashface.bind(params["flashface"])
        negative = text_tower(request.negative_tokens)
        references = request.track or ReferenceLatents(
            encode_crops(autoencoder, request.references), negative
        )
        _check_painting(request, autoencoder.config.stride)
        painted = _painted_into(autoencoder, model.config.inpaints, request)
        conditioning = Conditioning(
            prompt=text_tower(request.tokens),
            negative=jnp.repeat(negative, len(request.tokens), axis=0),
            references=references,
            reference_weight=request.reference_weight,
            person_share=request.person_share,
            condition=painted.condition,
            known=painted.known,
        )
        keys = jax.vmap(jax.random.key)(request.seeds)
        shape = (*request.face_mask.shape[1:3], autoencoder.config.latent_channels)
        noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
        return SamplingRun(conditioning, start(noise, keys))

    def advance(
        self, params: dict[str, Params], run: SamplingRun, plan: Plan, stop: Int[Array, ""]
    ) -> SamplingState:
        """Make the evaluations of a plan up to `stop`."""
        model = self.system.flashface.bind(params["flashface"])
        return advance(model, run.conditioning, run.state, plan, stop, self.prediction)

    def finish(self, params: dict[str, Params], latents: Latent) -> UInt8[Array, "batch H W 3"]:
        """Decode, one image after the other: full-size feature maps are most of the memory."""
        autoencoder = self.system.autoencoder.bind(params["autoencoder"])

        def decode(latent: Float[Array, "h w c"]) -> UInt8[Array, "H W 3"]:
            image = (
                decode_in_tiles(autoencoder, latent[None], self.tile)
                if self.tile
                else autoencoder.decode(latent[None])
            )
            return to_pixels(image)[0]

        return jax.lax.map(decode, latents)


Generate = Callable[[dict[str, Params], RequestBatch, Plan], jax.Array]


def make_generate(
    sampler: Sampler, mesh: Mesh | None = None, params_specs: Any = WHOLE
) -> Generate:
    """Return the jitted program that makes images, from start to end.

    It is compiled once for each shape of a request: image size, number of images, places for
    references. No value compiles anything: prompts, people, seeds, strengths, the solver and the
    number of steps are all data.

    Args:
        sampler: the parts.
        mesh: devices that share the images of a batch, over all its axes; one device if None.
        params_specs: how parameters lie on it; whole on each device unless told otherwise.
    """
    over = mesh or images_mesh(jax.local_devices()[:1])
    images = PartitionSpec(over.axis_names)

    @partial(jax.jit, compiler_options=compiler_options())
    def generate(
        params: dict[str, Params], request: RequestBatch, plan: Plan
    ) -> UInt8[Array, "batch H W 3"]:
        leaves, structure = jax.tree.flatten(request)

        def whole(params: dict[str, Params], leaves: list[Array], plan: Plan) -> Array:
            run = sampler.begin(params, jax.tree.unflatten(structure, leaves))
            state = sampler.advance(params, run, plan, plan.count)
            return sampler.finish(params, state.x)

        # Nothing passes between devices: each makes its own images.
        return jax.shard_map(
            whole,
            mesh=over,
            in_specs=(params_specs, request_specs(request, images), PartitionSpec()),
            out_specs=images,
            check_vma=False,
        )(params, leaves, plan)

    return generate


def make_stepwise(sampler: Sampler, mesh: Mesh | None, on_step: Callable[[], object]) -> Generate:
    """Return what makes the same images evaluation by evaluation, and calls `on_step` after each.

    Three programs in place of one with a call back into Python, which JAX would not keep in its
    cache of compiled programs.
    """
    over = mesh or images_mesh(jax.local_devices()[:1])

    def spread(function: Callable[..., Any], own_people: bool, *arguments: Any) -> Any:
        """Run a function of (params, tree, *shared) on every device's part of a tree."""
        params, tree, *shared = arguments
        leaves, structure = jax.tree.flatten(tree)
        outcome = jax.eval_shape(function, params, tree, *shared)

        def part(params: Any, leaves: list[Array], *shared: Any) -> list[Array]:
            made = function(params, jax.tree.unflatten(structure, leaves), *shared)
            return jax.tree.leaves(made)

        made = jax.shard_map(
            part,
            mesh=over,
            in_specs=(PartitionSpec(), _specs(tree, own_people), *[PartitionSpec()] * len(shared)),
            out_specs=_specs(outcome, own_people),
            check_vma=False,
        )(params, leaves, *shared)
        return jax.tree.unflatten(jax.tree.structure(outcome), made)

    options = compiler_options()
    begin, one_on = (
        jax.jit(partial(spread, part), static_argnums=0, compiler_options=options)
        for part in (sampler.begin, sampler.advance)
    )
    finish = jax.jit(partial(spread, sampler.finish, True), compiler_options=options)

    def generate(params: dict[str, Params], request: RequestBatch, plan: Plan) -> jax.Array:
        own = _has_own_people(request)
        run = begin(own, params, request)
        for made in range(1, int(plan.count) + 1):
            state = one_on(own, params, run, plan, jnp.asarray(made, jnp.int32))
            run = SamplingRun(run.conditioning, jax.block_until_ready(state))
            on_step()
        return finish(params, run.state.x)

    return generate


def make_track(system: System) -> Callable[..., ReferenceTrack]:
    """Return the jitted program that computes references' features at each evaluation of a run."""

    @partial(jax.jit, compiler_options=compiler_options())
    def track(
        params: dict[str, Params],
        references: UInt8[Array, "sets refs R R 3"],
        negative_tokens: Int[Array, "1 words"],
        timestep: Int[Array, " evaluations"],
    ) -> ReferenceTrack:
        autoencoder = system.autoencoder.bind(params["autoencoder"])
        negative = system.text_tower.bind(params["text_tower"])(negative_tokens)
        latents = ReferenceLatents(encode_crops(autoencoder, references), negative)
        return track_references(system.flashface.bind(params["flashface"]), latents, timestep)

    return track


class _PaintedInto(NamedTuple):
    condition: ImageCondition
    known: KnownImage | None


def _check_people(request: RequestBatch) -> None:
    """Refuse people that the images of a batch cannot share."""
    where, batch = "Sampler.begin", len(request.tokens)
    (rows, people), sets = request.person_share.shape, len(request.references)
    require(
        rows in (1, batch),
        "request.person_share",
        where,
        f"{rows} rows",
        f"one for all images, or {batch}, one for each",
    )
    require(
        sets == rows * people,
        "request.references",
        where,
        f"{sets} sets",
        f"{rows * people}, one for each entry of `request.person_share`",
    )


def _check_painting(request: RequestBatch, stride: int) -> None:
    """Refuse images to paint into that have another size than the images to make."""
    if request.inpainting is None:
        return
    pixels = request.inpainting.images.shape[1:3]
    wanted = tuple(stride * side for side in request.face_mask.shape[1:3])
    require(
        pixels == wanted,
        "request.inpainting.images",
        "Sampler.begin",
        f"{pixels[0]}x{pixels[1]} pixels",
        f"{wanted[0]}x{wanted[1]}, {stride} for each position of `request.face_mask`",
    )


def _painted_into(autoencoder: Autoencoder, inpaints: bool, request: RequestBatch) -> _PaintedInto:
    """What the denoiser, and the loop, know of the images to paint into.

    An inpainting model sees the image without the part to repaint (paper); for others the
    loop puts the rest of the image back after every step.
    """
    inpainting = request.inpainting
    if inpainting is None:
        if inpaints:
            raise ValueError("This is an inpainting model: give it images to paint into.")
        return _PaintedInto(request.face_mask, None)
    image = from_pixels(inpainting.images)
    if not inpaints:
        return _PaintedInto(
            request.face_mask, KnownImage(autoencoder.encode(image), inpainting.repaint)
        )
    rest = autoencoder.encode(image * (1 - inpainting.repaint_pixels))
    return _PaintedInto(jnp.concatenate([rest, inpainting.repaint], axis=-1), None)
