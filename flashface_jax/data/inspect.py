"""The former name of `flashface data inspect`, which scripts may still call."""

import runpy

if __name__ == "__main__":
    runpy.run_module("flashface_jax.inspection", run_name="__main__", alter_sys=True)
