"""The former name of `flashface data draw`, which scripts may still call."""

import sys

from flashface_jax.data.draw import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m flashface_jax.data.synthetic"))
