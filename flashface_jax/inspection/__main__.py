"""`python -m flashface_jax.inspection` is `flashface data inspect`."""

import sys

from flashface_jax.inspection.command import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m flashface_jax.inspection"))
