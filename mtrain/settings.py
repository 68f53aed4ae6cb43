"""Settings as a user gives them (a file, options, `mtrain.fit`) -> a checked `FitConfig`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dpconvert.manifest.toml_text import read_toml
from dpconvert.names import closest
from dpconvert.validation_errors import first_fault
from mtrain.backbones import catalog
from mtrain.config import FitConfig
from mtrain.data.addresses import absolute, url_of
from mtrain.data.choice import Choice, check_joint, chosen
from mtrain.data.pool import leave_out, outlined
from mtrain.errors import UsageError
from mtrain.runs.run_folder import Run
from mtrain.runs.untrained import Start, start_of
from mtrain.setting_roles import BEFORE

PAGE = "`mtrain fit --print-config` prints every setting"
SWEEPS = {"grid", "seeds", "sweep"}  # entries of the file and of the plan of a sweep, which no training has


def check_names(config: FitConfig, *, resumed: bool = False, recorded: Choice | None = None) -> None:
    """Look for what the settings name, without torch: the folder of shards, its tasks, the weights to start from.

    recorded: the choice of tasks that a resumed run recorded.

    Raises:
        UsageError: no such folder, task or weights file.
        ShardError: a task that is unfinished or does not match its card.
    """
    if not resumed:
        _check_network(config)
    if url_of(config.shards) is None:
        whole = outlined(config.shards)
        pool, _, _ = chosen(whole, leave_out(whole, config.leave_out)[0], config, recorded)
        check_joint(whole, pool, config.joint)


def untrained(runs: Path, given: dict[str, Any]) -> Start:
    """A network by `backbone`, `backbone_options`, `weights` and `size`, to be scored without a training. Mistakes in
    them are reported without loading torch.

    Raises:
        UsageError: weights that are missing, or a size that the network does not take.
    """
    config = fit_config(None, given)
    _check_network(config)
    return start_of(runs, config)


def _check_network(config: FitConfig) -> None:
    card = catalog.described(config.backbone, config.backbone_options)
    if config.weights not in ("imagenet", "random") and not Path(config.weights).exists():
        names = "imagenet, random" if card is None else "random"
        raise UsageError("no such weights file", where=config.weights, remedy=f"give {names} or the path of a file")
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
    weights = values.get("weights", "imagenet")
    if isinstance(weights, str | os.PathLike) and weights not in ("imagenet", "random"):
        values["weights"] = str(Path(weights).absolute())
    if values.get("drop"):
        values["drop"] = str(Path(values["drop"]).absolute())
    if isinstance(values.get("backbone"), str):
        values["backbone"] = catalog.absolute(values["backbone"])
    try:
        return FitConfig.model_validate(values)
    except ValidationError as error:
        raise unusable(error) from None


def unusable(error: ValidationError) -> UsageError:
    """What is wrong with a setting of a training, by the name of its option."""
    fault = first_fault(error, FitConfig)
    option, _, inside = fault.place.partition(".")
    known = f"--{option.replace('_', '-')}" if option in FitConfig.model_fields else option
    place = known + (f" ({inside})" if inside else "")
    return UsageError(f"{place}: {fault.what}", found=fault.found)


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a TOML file, or those of a run from its config.json or its folder. Relative paths in it start
    where you are.

    Raises:
        UsageError: no such file, not TOML or JSON, a sweep, a setting that does not exist, or a value that it does not
            take.
    """
    if path.is_dir():
        path /= "config.json"
    is_json = path.suffix == ".json"
    try:
        found = json.loads(path.read_bytes()) if is_json else read_toml(path)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        what = "no such file of settings" if missing else f"cannot be read: {error.strerror or error}"
        raise UsageError(what, where=path, remedy=PAGE if missing else None) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not {'JSON' if is_json else 'TOML'}: {error}", where=path) from None
    if isinstance(found, dict) and isinstance(found.get("config"), dict):
        found = BEFORE | found["config"]
    if isinstance(found, dict) and SWEEPS & found.keys():
        raise UsageError("describes a sweep, not one training run", where=path, remedy="`mtrain sweep FILE` runs it")
    try:
        checked = FitConfig.model_validate(found)
    except ValidationError as error:
        fault = first_fault(error, FitConfig)
        raise UsageError(str(fault), where=path, found=fault.found, remedy=PAGE) from None
    return {name: getattr(checked, name) for name in found}


def as_toml(config: FitConfig) -> str:
    """All settings, each below its description, as a file that `read_settings` takes."""
    lines = []
    for name, value in config.model_dump(mode="json").items():
        lines.append(f"# {FitConfig.model_fields[name].description}")
        lines.append(f"# {name} =" if value is None else f"{name} = {_toml(value)}")
    return "\n".join(lines)


def _toml(value: Any) -> str:
    """A value of a setting; JSON's notation is TOML's but for tables."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k, ensure_ascii=False)} = {_toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
