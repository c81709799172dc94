"""Precomputing from a command line's options to the directory that is written."""

import argparse
from collections.abc import Sequence

from absl import logging
from tqdm import tqdm

from flashface_jax.data.dataset import IdClusters
from flashface_jax.data.precomputing.drafting import drafting
from flashface_jax.data.precomputing.planning import make_plan
from flashface_jax.data.precomputing.writing import write_split


def precompute(asked: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Do what was asked.

    Raises:
        ValueError: weights, dataset or configuration do not fit each other, or the disk is full.
        OSError: something cannot be written.
    """
    logging.set_verbosity(logging.WARNING)  # Orbax reports every file that it touches
    plan = make_plan(asked, overrides)
    with drafting(asked.out, plan.origin, plan.photos) as draft:
        print(draft.require_room(), flush=True)
        total, left = sum(plan.photos.values()), sum(draft.missing_photos)
        with tqdm(total=total, initial=total - left, desc="encoding", unit="photo") as bar:
            for split in plan.photos:
                write_split(draft, split, plan.work(split), bar.update)
        plan.write_prompt(draft.place)
        if IdClusters(asked.dataset).metadata["contents"] != plan.origin.contents:
            raise ValueError(f"{asked.dataset} changed meanwhile: remove {draft.place}.")
        draft.finish(asked.out)
