"""Train FlashFace; `python train.py --help` explains."""

import sys

from flashface_jax.training.command import main

if __name__ == "__main__":
    sys.exit(main(prog="train.py"))
