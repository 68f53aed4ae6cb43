"""The settings of a training as a user gives them in, a `FitConfig` out: by the command line or by `mtrain.fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dpconvert.names import closest
from mtrain.backbones import catalog
from mtrain.config import FitConfig
from mtrain.data.pool import leave_out, outlined
from mtrain.data.storage import absolute, url_of
from mtrain.errors import UsageError
from mtrain.runs import Run, Start, start_of


def check_names(config: FitConfig, *, resumed: bool = False) -> None:
    """Look for what the settings name, without torch: the folder of shards, its tasks, the weights to start from.

    Raises:
        UsageError: no such folder, task or weights file.
        ShardError: a task that is unfinished or does not match its card.
    """
    if not resumed:
        _check_network(config)
    if url_of(config.shards) is None:
        leave_out(outlined(config.shards), config.leave_out)


def untrained(runs: Path, given: dict[str, Any]) -> Start:
    """A network by `backbone`, `backbone_options`, `weights` and `size`, to be scored without a training. Mistakes in
    them are told without torch.

    Raises:
        UsageError: weights that are missing, or a size that the network does not take.
    """
    config = fit_config(None, given)
    _check_network(config)
    return start_of(runs, config)


def _check_network(config: FitConfig) -> None:
    if config.weights not in ("imagenet", "random") and not Path(config.weights).exists():
        raise UsageError(
            "no such weights file", where=config.weights, remedy="give imagenet, random or the path of a file"
        )
    card = catalog.described(config.backbone, config.backbone_options)
    if card is not None:
        catalog.check_weights(card, config.weights)
        if fault := card.size_fault(config.size):
            raise UsageError(fault, found=f"--size {config.size}")


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
    if "backbone" in values:
        values["backbone"] = catalog.absolute(values["backbone"])
    try:
        return FitConfig.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        option = "--" + str(problem["loc"][0]).replace("_", "-")
        reason = problem["msg"].removeprefix("Value error, ")
        raise UsageError(f"{option}: {reason[0].lower()}{reason[1:]}", found=problem["input"]) from None
