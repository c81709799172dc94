"""`python -m flashface_jax.curation` is `flashface curate`."""

import sys

from flashface_jax.curation.command import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m flashface_jax.curation"))
