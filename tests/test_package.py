"""The package imports, and importing it starts no accelerator backend."""

import subprocess
import sys


def test_import_is_light():
    code = "import flashface_jax, sys; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
