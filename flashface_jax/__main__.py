"""`python -m flashface_jax` is `flashface`."""

import sys

from flashface_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
