"""Whether latents and contexts that were precomputed are those that a run would compute."""

from collections.abc import Sequence
from pathlib import Path

from flashface_jax.data.dataset import IdClusters
from flashface_jax.data.loading.encoders import encoders_sha256, sizes_of
from flashface_jax.data.loading.loader import BatchLoader
from flashface_jax.data.loading.pipeline import Order, encoded_batches
from flashface_jax.data.loading.precomputed import REMEDY, Origin, Precomputed, differences
from flashface_jax.models.network import Params
from flashface_jax.training.config import TrainConfig
from flashface_jax.weights.tokenizer import Tokenizer


def precomputed_batches(
    config: TrainConfig,
    dataset: IdClusters,
    tokenizer: Tokenizer,
    order: Order,
    rows: Sequence[int],
) -> BatchLoader:
    """Batches of the configured directory, of which this process makes some rows.

    Raises:
        ValueError: there is none, or it was made of other photos, sizes or tokens.
    """
    precomputed = Precomputed(Path(config.data.precomputed))
    inpaints = config.system.flashface.inpaints
    origin = precomputed.origin
    _require_same_photos(precomputed, dataset)
    differ = differences(vars(origin.sizes), vars(sizes_of(config.system)))
    if origin.tokenizer != tokenizer.sha256:
        differ.append("another tokenizer")
    if inpaints and not origin.without_face:
        differ.append("no latents of images without their faces, which an inpainting model sees")
    if differ:
        raise ValueError(
            f"{precomputed.path} does not fit the run ({'; '.join(differ)}): {REMEDY} with "
            "--config and the run's weights, into another directory."
        )
    return encoded_batches(
        dataset,
        precomputed,
        order,
        config.batch_size,
        config.data.loader,
        rows,
        without_face=inpaints,
    )


def _require_same_photos(precomputed: Precomputed, dataset: IdClusters) -> None:
    contents = dataset.metadata["contents"]
    if differ := differences(precomputed.origin.contents, contents):
        raise ValueError(
            f"{precomputed.path} was not made of the photos that {dataset.path} holds "
            f"({'; '.join(differ)}), as when people were taken out of them since: remove it, and "
            f"{REMEDY}."
        )


def require_same_weights(config: TrainConfig, frozen: dict[str, Params]) -> None:
    """Refuse precomputed latents of other networks than the run's; every process must call it.

    Raises:
        ValueError: they are of others.
    """
    if not config.data.precomputed:
        return
    origin: Origin = Precomputed(Path(config.data.precomputed)).origin
    if origin.weights != encoders_sha256(frozen):
        raise ValueError(
            f"{config.data.precomputed} was made with another autoencoder or text tower than the "
            f"run's: {REMEDY} --weights {config.initial or 'DIR'}, and start the run from the same "
            "with initial."
        )
