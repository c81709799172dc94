"""Make images of a person from photos and a prompt; `python sample.py --help` explains."""

import sys

from flashface_jax.sample_command import main
from flashface_jax.sample_options import parse_arguments

if __name__ == "__main__":
    try:
        sys.exit(main(parse_arguments()))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
