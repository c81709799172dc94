"""`python -m flashface_jax.demo` is `flashface demo`."""

import sys

from flashface_jax.demo.command import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m flashface_jax.demo"))
