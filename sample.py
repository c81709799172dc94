r"""Make images of a person from reference faces and a prompt.

    python sample.py --weights weights/flashface --faces-cropped --references me1.png me2.png \
        --prompt "a young man with long brown hair is sitting in the desert" --out desert

--weights takes a converted directory (python -m flashface_jax.convert official --help) or the
working directory of a training run. Any number of references serves; several that differ in pose
and light work best. Strengths left out are those that the weights were released or trained with.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from flashface_jax.faces.files import read_cropped_faces
from flashface_jax.files import require_new
from flashface_jax.pictures import write_images
from flashface_jax.pipeline import Pipeline

STRENGTHS = {
    "steps": (int, "solver steps; 25 to 50 for the released weights"),
    "text_guidance": (float, "how closely to follow the prompt; 7 to 9"),
    "reference_guidance": (float, "how hard to push towards the references; 2 to 3.2"),
    "reference_strength": (float, "share of reference attention; 0.8 to 1.3, 0.9 for another age"),
    "early_reference_strength": (float, "the same, before the launch timestep"),
    "launch_timestep": (int, "reference guidance starts below this timestep; 0 to 1000"),
    "rescale": (float, "how far guidance's contrast is taken back; 0 to 1"),
    "prompt_suffix": (str, "words joined to the prompt; '' for none"),
    "negative_suffix": (str, "words joined to the negative prompt; '' for none"),
}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=kind)
    add = parser.add_argument
    add("--weights", type=Path, required=True, metavar="DIR", help="weights or run to open")
    add("--references", type=Path, nargs="+", required=True, metavar="PHOTO", help="one person")
    cropped = "the photos are upright face crops already (faces are not searched for yet)"
    add("--faces-cropped", action="store_true", help=cropped)
    add("--prompt", action="append", required=True, help="give it again for more pictures")
    add("--negative-prompt", default="", metavar="TEXT", help="what to avoid")
    box = "where the face goes, as fractions of the side; 0 0 0 0: anywhere (default: %(default)s)"
    default, corners = (0.3, 0.2, 0.6, 0.5), ("X1", "Y1", "X2", "Y2")
    add("--face-box", type=float, nargs=4, default=default, metavar=corners, help=box)
    add("--images", type=int, default=1, metavar="N", help="images of each prompt (default: 1)")
    add("--seed", type=int, default=0, help="seed of the first image; the next is one more")
    add("--out", type=Path, default=Path("samples"), metavar="DIR", help="new directory to write")
    knobs = parser.add_argument_group("strengths (default: what the weights say)")
    for name, (type_, text) in STRENGTHS.items():
        knobs.add_argument(f"--{name.replace('_', '-')}", type=type_, metavar="X", help=text)
    return parser.parse_args(arguments)


def main(options: argparse.Namespace) -> None:
    """Make the images, write them and a contact sheet, and say where."""
    if not options.faces_cropped:
        raise ValueError("Faces are not searched for yet: crop them and give --faces-cropped.")
    if options.images < 1 or options.seed < 0:
        raise ValueError("--images must be 1 or more, and --seed 0 or more.")
    require_new(options.out)
    with tqdm(desc="sampling", unit="step") as bar:
        pipeline = Pipeline.from_directory(options.weights, on_step=bar.update)
        chosen = {name: getattr(options, name) for name in STRENGTHS}
        changed = {name: value for name, value in chosen.items() if value is not None}
        sampling = replace(pipeline.config.sampling, **changed)
        faces = read_cropped_faces(options.references, pipeline.config.reference_size)
        prompts = [prompt for prompt in options.prompt for _ in range(options.images)]
        bar.reset(total=sampling.steps)
        images = pipeline(
            prompts,
            faces,
            seeds=[options.seed + i for i in range(len(prompts))],
            negative_prompt=options.negative_prompt,
            face_box=options.face_box,
            sampling=sampling,
        )
    write_images(options.out, images, prompts, faces)
    print(f"wrote {len(images)} images and sheet.png to {options.out}")


if __name__ == "__main__":
    try:
        main(parse_arguments())
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
