"""Make images of a person from photos and a prompt; `python sample.py --help` explains."""

import sys

from flashface_jax.sampling.command import main

if __name__ == "__main__":
    sys.exit(main(prog="sample.py"))
