"""What `import mtrain` offers to a notebook or a program: what the commands do, as functions."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpconvert.arguments import check_options, check_whole, in_arguments, named, of_model
from dpconvert.names import closest
from dpconvert.runtime.progress import Reporter
from mtrain.backbones.card import BackboneCard
from mtrain.config import FitConfig
from mtrain.errors import RunError, UsageError
from mtrain.model import network as networks
from mtrain.model.network import SharedNetwork
from mtrain.runs.belonging import check_weights
from mtrain.runs.run_folder import Run
from mtrain.runs.run_names import named_run, new_name, open_run
from mtrain.settings import fit_config
from mtrain.train import fit as training
from mtrain.transfers.modes import MODES
from mtrain.transfers.pretrained import TransferOptions
from mtrain.transfers.request import targets, weights_of
from mtrain.transfers.transfer import source_of
from mtrain.transfers.transfer import transfer as score

Folder = str | os.PathLike[str]
ARGUMENTS = of_model(FitConfig) | {
    "backbone-option": "backbone_options",
    "task-weight": "task_weights",
    "run": "run",
    "runs": "runs",
    "target": "target",
    "mode": "mode",
}


@named(ARGUMENTS)
def fit(
    shards: Folder | None = None,
    leave_out: str | Sequence[str] | None = None,
    *,
    run: str | None = None,
    runs: Folder = "runs",
    quiet: bool = True,
    **settings: Any,
) -> Run:
    """Train one shared network with a head for each task, as `mtrain fit` does; the defaults are the paper's.

    Args:
        shards: Folder of the tasks, or its address (`s3://`, `gs://`, `https://`). Default: `shards`.
        leave_out: Tasks not to train on. Tasks related to them are left out as well.
        run: Name of the run. An existing run is resumed with its own settings where others are not given. Default: a
            new name.
        runs: Folder of the runs.
        quiet: Show no progress.
        settings: Any field of `mtrain.FitConfig`, such as `backbone`, `iterations`, `lr` or `device`.

    Returns:
        The run, whose `path` holds `shared.safetensors`, `heads.safetensors` and the log.

    A setting that has no effect beside the others is reported by a warning.

    Raises:
        UsageError: A setting or a task that does not exist.
        ShardError: A task that is unfinished or damaged.
        RunError: The run has other settings, is in use, has diverged or was interrupted (the next call resumes it).
    """
    existing = named_run(Path(runs), run) if run else None
    names = (leave_out,) if isinstance(leave_out, str) else leave_out
    given = {"shards": shards, "leave_out": None if names is None else tuple(names), **settings}
    config = fit_config(existing, {name: value for name, value in given.items() if value is not None})
    for name, why in config.idle().items():
        if name in settings:
            warnings.warn(f"{name} is not used: {in_arguments(why, ARGUMENTS)}", stacklevel=3)
    made = existing or named_run(Path(runs), new_name(Path(runs), config))
    with made.removed_if_empty():
        state = training.fit(config, made, Reporter(quiet=quiet))
    if state == "stopped":
        raise RunError("the training was interrupted; a checkpoint is kept", where=made.path, remedy="call fit again")
    return made


@named(ARGUMENTS)
def transfer(
    run: Run | Folder,
    target: str,
    mode: str = "svm",
    *,
    weights: Folder = "run",
    shards: Folder | None = None,
    options: TransferOptions | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """Score how a run's network transfers to a target task, as `mtrain transfer` does.

    The training set of the target trains and its validation set scores. Test sets are for `mtrain evaluate`.

    Args:
        run: A run, or its folder.
        target: Name of a task, or the path of its folder.
        mode: svm, logistic, knn, eva, fewshot, finetune, scratch, joint or dense.
        weights: `run` for the run's own, `imagenet` for the baseline, `random`, or a file.
        shards: Folder of the tasks. Default: that of the run.
        options: Solver, workers, the recipe of fine-tuning, and what `dense` trains; their `mode` is ignored.
        quiet: Show no progress.

    Returns:
        The result as it is written to `<run>/transfer/`: `score` (at most 1; None where it is not defined), `metric`,
        `scores`, `intervals` (95%, by the bootstrap over groups), `set` and the settings of the classifier.

    Raises:
        UsageError: A mode, a task or weights that do not exist or do not go together.
        RunError: The run has not finished.
    """
    mode = closest(str(mode), MODES, "mode")
    options = TransferOptions() if options is None else options
    check_options(options, TransferOptions)
    given = run if isinstance(run, Run) else open_run(Path("runs"), os.fspath(run))
    (task,) = targets(given, None if shards is None else Path(shards), [target], mode)
    chosen = TransferOptions(**{**vars(options), "mode": mode})
    check_whole("workers", chosen.workers, 0)
    if chosen.final:
        raise UsageError("test sets are for the last step", remedy="run `mtrain transfer --final` or `mtrain evaluate`")
    weights = os.fspath(weights)
    seed = chosen.recipe.seed if mode == "scratch" else None
    source = source_of(given, weights_of(given, weights, mode), seed)
    return score(source, task, chosen, Reporter(quiet=quiet))


@named(ARGUMENTS)
def load_network(run: Run | Folder) -> SharedNetwork:
    """The shared network of a finished run, in evaluation mode on the CPU.

    `network(network.normalize(images))` maps uint8 images (N, 3, H, W) to features (N, network.num_features).

    Args:
        run: A run, or its folder.

    Raises:
        RunError: The run has not finished, or its weights are damaged or those of another run.
    """
    given = run if isinstance(run, Run) else open_run(Path("runs"), os.fspath(run))
    given.check_finished()
    check_weights(given)
    return networks.shared_network(given.network(), given.weights).eval()


@named({"backbone": "name", "weights": "weights", "weights-key": "key"})
def shared_network(name: str | BackboneCard, weights: Folder = "imagenet", key: str | None = None) -> SharedNetwork:
    """A shared network without heads, on the CPU.

    `network(network.normalize(images))` maps uint8 images (N, 3, H, W) to features (N, network.num_features).

    Args:
        name: One that `mtrain backbones` lists, a network of torchvision, `timm:NAME`, or the path of a table.
        weights: `imagenet`, `random` (from torch's current random state), a file, or the folder that contains it.
        key: The part of the weights file to use if it contains several networks.

    Raises:
        UsageError: The name is unknown, or the network's classifier cannot be identified.
        RunError: The weights are not available or do not fit the network.
    """
    if not isinstance(name, str | BackboneCard):
        raise UsageError("name: must be that of a network", found=repr(name))
    return networks.shared_network(name, weights, key)
