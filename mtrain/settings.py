"""The settings of a training as a user gives them in, a `FitConfig` out: by the command line or by `mtrain.fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dpconvert.names import closest
from dpconvert.validation import first_fault
from mtrain.config import FitConfig
from mtrain.data.pool import leave_out, outlined
from mtrain.data.storage import absolute, url_of
from mtrain.errors import UsageError
from mtrain.runs import Run


def check_names(config: FitConfig, *, resumed: bool = False) -> None:
    """Look for what the settings name, without torch: the folder of shards, its tasks, the weights to start from.

    Raises:
        UsageError: no such folder, task or weights file.
        ShardError: a task that is unfinished or does not match its card.
    """
    if not resumed and config.weights not in ("imagenet", "random") and not Path(config.weights).is_file():
        raise UsageError(
            "no such weights file", where=config.weights, remedy="give imagenet, random or the path of a file"
        )
    if url_of(config.shards) is None:
        leave_out(outlined(config.shards), config.leave_out)


def fit_config(run: Run | None, given: dict[str, Any]) -> FitConfig:
    """What is not given is that of the run if it exists, else the default. Paths become absolute.

    Raises:
        UsageError: a setting that does not exist, or a value that it does not take.
        RunError: the run's own settings are damaged.
    """
    for name in given:
        closest(name, FitConfig.model_fields, "setting")
    base = run.config().model_dump() if run and run.exists else {"shards": Path("shards")}
    values = base | given
    values["shards"] = absolute(values["shards"])
    if values.get("weights", "imagenet") not in ("imagenet", "random"):
        values["weights"] = str(Path(values["weights"]).absolute())
    try:
        return FitConfig.model_validate(values)
    except ValidationError as error:
        raise unusable(error) from None


def unusable(error: ValidationError) -> UsageError:
    """What is wrong with a setting of a training, by the name of its option."""
    fault = first_fault(error, FitConfig)
    option, _, inside = fault.place.partition(".")
    place = f"--{option.replace('_', '-')}" + (f" ({inside})" if inside else "")
    return UsageError(f"{place}: {fault.what}", found=fault.found)
