"""Reading `configs/*.py` outside of train.py, whose flags do it there."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from flashface_jax.training.config import TrainConfig, from_mapping


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
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
    values, words = flags.FlagValues(), ["plan", *overrides]
    try:
        config = config_flags.DEFINE_config_dict(
            "config", module.get_config(), flag_values=values, sys_argv=words
        )
        values(words)
    except (AttributeError, KeyError) as error:
        # So ml_collections says that there is no such field, and what else may have been meant.
        named = error.__context__ if isinstance(error.__context__, KeyError) else error
        said = ": ".join(str(named.args[0]).splitlines())
        raise ValueError(f"The configuration has no field {said}") from error
    except flags.UnrecognizedFlagError as error:
        raise ValueError(f"The configuration has no field {error.flagname}.") from error
    except flags.Error as error:
        raise ValueError(str(error)) from error
    return from_mapping(config.value.to_dict())
