"""Reading `configs/*.py`, with fields overridden by flags, into nested dicts."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags


def read_config_file(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a configuration file, and override fields of it.

    Args:
        path: of a file such as configs/synthetic.py.
        overrides: e.g. `--config.batch_size=8`.

    Raises:
        ValueError: if the file is not there, or naming the field that is unknown or wrong.
    """
    spec = importlib.util.spec_from_file_location("config", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ValueError(
            f"{path} does not exist or is no Python file: name one such as configs/synthetic.py."
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ValueError(f"{path} is no configuration: it has no function get_config().")
    holder, words = flags.FlagValues(), ["plan", *overrides]
    try:
        config = config_flags.DEFINE_config_dict(
            "config", module.get_config(), flag_values=holder, sys_argv=words
        )
        holder(words)
    except (AttributeError, KeyError) as error:
        # So ml_collections says that there is no such field, and what else may have been meant.
        named = error.__context__ if isinstance(error.__context__, KeyError) else error
        said = ": ".join(str(named.args[0]).splitlines())
        raise ValueError(f"The configuration has no field {said}") from error
    except flags.UnrecognizedFlagError as error:
        raise ValueError(f"The configuration has no field {error.flagname}.") from error
    except flags.Error as error:
        raise ValueError(str(error)) from error
    values: dict[str, Any] = config.value.to_dict()
    return values
