"""`python -m flashface_jax.convert` is `flashface convert`."""

import sys

from flashface_jax.convert.command import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m flashface_jax.convert"))
