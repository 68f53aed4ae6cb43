"""Trains networks for release on all data (train, val and test of every task), with settings chosen before.

This is the paper's last step. It comes after every choice, and nothing that these networks are trained on can evaluate
them. The scores on their cards are those of networks with the same settings that were not trained on the target.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dpconvert.plural import counted
from dpconvert.runtime.progress import Reporter
from mtrain.backbones import catalog
from mtrain.config import FitConfig
from mtrain.data.choice import chosen
from mtrain.data.pool import Pool, open_pool, training_on
from mtrain.data.task import Permit, Task, fetch_shards, with_test
from mtrain.disk.atomic import write_text
from mtrain.disk.checksums import write_sums
from mtrain.disk.documents import write_document
from mtrain.errors import RunError, UsageError
from mtrain.evaluation.comparing.comparable import comparable
from mtrain.evaluation.comparing.comparisons import IMAGENET, START
from mtrain.evaluation.paper_tables import TITLES, TRANSFERS, Evaluation, read_evaluations, table
from mtrain.export import Exported, archive, closed_start, export, licence_error, modelcard, with_licence
from mtrain.runs.run_folder import Run, RunState
from mtrain.scoring.metrics import METRICS
from mtrain.setting_roles import INCIDENTAL
from mtrain.settings import unusable
from mtrain.sweep.combination import WHOLE, Combination, rate
from mtrain.sweep.spec import Sweep
from mtrain.sweep.store import SELECTED, Store
from mtrain.train.fit import fit

SPLITS = ("train", "val", "test")
# the settings of the authors' released networks, used unless others are given
DENSENET = {"lr": 1e-4, "tau": 5.0}
RELEASED = {"mtdp_densenet121": DENSENET, "densenet121": DENSENET, "resnet50": {"lr": 1e-3, "tau": 1.0}}


@dataclass(frozen=True)
class ReleaseRequest:
    """A request to release networks: settings of the training, seeds, and the folders of runs and releases."""

    shards: str
    settings: dict[str, Any]
    seeds: tuple[int, ...] = (0,)
    runs: Path = Path("runs")
    out: Path = Path("release")
    store: Store | None = None
    evaluations: Path = Path("evaluations")
    accepted: bool = False
    creators: tuple[str, ...] = ()


def release(request: ReleaseRequest, report: Reporter) -> tuple[RunState, list[Exported]]:
    """Train one network for each seed (and each backbone of a sweep), and export it. Existing runs are not repeated.

    Returns "finished", or "stopped" if a signal stopped it; and the networks exported.

    Raises:
        UsageError: the settings are invalid, or a licence does not allow it.
        RunError: nothing is selected in the sweep, or a run cannot be resumed.
    """
    pool = whole(open_pool(request.shards))
    trainings, released = configs(request), list[Exported]()
    for config in trainings:
        _check_licences(_trained_on(config, pool), config, accepted=request.accepted)
    for config in trainings:
        fetch_shards(_trained_on(config, pool), SPLITS, report)
        run = Run(request.runs / _name(config, pool))
        if fit(config, run, report, pool=pool) == "stopped":
            return "stopped", released
        released.append(_export(run, config, pool, request, report))
        report.note(f"{run.name}: {', '.join(released[-1].files)} -> {released[-1].folder} (and .zip)")
    return "finished", released


def whole(pool: Pool) -> Pool:
    """The pool with all samples of each task, test sets included, as its training set."""
    complete = tuple(with_test(task, Permit.RELEASE) for task in pool.tasks)
    return training_on(dataclasses.replace(pool, tasks=complete), SPLITS)


def configs(request: ReleaseRequest) -> list[FitConfig]:
    """One training for each backbone and seed.

    Raises:
        UsageError: a setting does not exist, or has an invalid value.
        RunError: nothing is selected in the sweep.
    """
    trainings, default = [], FitConfig.model_fields["backbone"].default
    for base in [{}] if request.store is None else _selected(request.store, request.settings.get("backbone")):
        defaults = {} if base else RELEASED.get(request.settings.get("backbone", default), {})
        always = {"shards": request.shards, "leave_out": (), "validate_every": 0, "train_on": "+".join(SPLITS)}
        for seed in request.seeds:
            try:
                trainings.append(FitConfig.model_validate(defaults | base | request.settings | always | {"seed": seed}))
            except ValidationError as error:
                raise unusable(error) from None
    if any(config.stream for config in trainings):
        raise UsageError("a release cannot stream: it reads all splits by offset", remedy="run it without --stream")
    return trainings


def sweep_shards(store: Store) -> str:
    """The folder or URL of a sweep's shards.

    Raises:
        RunError: the folder is not that of a sweep.
    """
    return _planned_sweep(store).shards


def _planned_sweep(store: Store) -> Sweep:
    path, content = store.path / "sweep.json", store.plan()
    try:
        return Sweep.model_validate(content["sweep"])
    except (ValueError, KeyError, TypeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        raise RunError(f"not a sweep's plan: {reason}", where=path, remedy="plan the sweep again") from None


def _selected(store: Store, backbone: str | None) -> list[dict[str, Any]]:
    """The settings of the best combination over all tasks of a sweep, for each network or for the named one."""
    path, selection = store.path / SELECTED, store.selection()
    try:
        chosen = selection["over_all_tasks"]
        fields = [field.name for field in dataclasses.fields(Combination)]
        combinations = [
            Combination(**{field: one[field] for field in fields if field in one})
            for name, one in chosen.items()
            if one is not None and backbone in (None, name)
        ]
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        raise RunError(f"no selection: {reason}", where=path, remedy="run `mtrain select` again") from None
    if not combinations:
        networks = ", ".join(chosen) or "none"
        raise UsageError(f"no combination is selected for {backbone}", where=path, remedy=f"networks: {networks}")
    sweep = _planned_sweep(store)
    if of_targets := [one for one in combinations if isinstance(sweep.pools.get(one.pool), str)]:
        raise UsageError(
            f"pool {of_targets[0].pool} is chosen for each target, and a release has none",
            where=path,
            found=str(of_targets[0]),
            remedy="train with these settings by `mtrain fit --drop FILE`, or sweep without this pool",
        )
    settings = [sweep.config(combination, (), 0).model_dump() for combination in combinations]
    return [{name: value for name, value in one.items() if name != "seed"} for one in settings]


def _trained_on(config: FitConfig, pool: Pool) -> tuple[Task, ...]:
    """The tasks that this training takes: all, unless the settings of a sweep choose some of them."""
    return chosen(pool, pool, config)[0].tasks


def _name(config: FitConfig, pool: Pool) -> str:
    """A readable folder name, unique to the data and the settings."""
    identity = json.dumps([config.determining(), config.weights, pool.digest], sort_keys=True, default=str)
    plain = catalog.slug(config.backbone)
    return f"release-{plain}-seed{config.seed}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def _export(run: Run, config: FitConfig, pool: Pool, request: ReleaseRequest, report: Reporter) -> Exported:
    exported = export(run, "safetensors", request.out / run.name, accepted=request.accepted)
    tasks = _trained_on(config, pool)
    sizes = {task.name: len(task.rows["train"]) for task in tasks}
    if left := len(pool.tasks) - len(tasks):
        report.note(f"{run.name}: the settings of the sweep leave out {counted(left, 'task')} of {len(pool.tasks)}")
    settings = config.model_dump(mode="json") | {"shards": Path(config.shards).name}  # not where they lie
    about = {"config": settings, "pool": pool.digest, "tasks": sizes, "splits": list(SPLITS)}
    write_document(exported.folder / "release.json", about | {"selected_in": request.store and request.store.name})
    card = exported.folder / modelcard.NAME
    text = card.read_text(encoding="utf-8")
    write_text(card, text + "\n".join(["", *_about_data(sizes), *_scores(config, request, report)]) + "\n")
    licences = [(task.card.licence.name, task.card.licence.open) for task in tasks]
    record = archive.write_metadata(exported.folder, archive.metadata(config, sizes, licences, request.creators))
    write_sums(exported.folder, (modelcard.NAME, "release.json", record))
    archive.pack(exported.folder)
    return dataclasses.replace(exported, files=(*exported.files, "release.json", record))


def _about_data(sizes: dict[str, int]) -> list[str]:
    total = f"{sum(sizes.values()):,}".replace(",", " ")
    return [
        "## All data",
        "",
        f"Trained on the train, validation and test sets of every task, {total} images: scores on any of these tasks",
        "are meaningless. Evaluate the network on data that are not in the table above.",
    ]


def _scores(config: FitConfig, request: ReleaseRequest, report: Reporter) -> list[str]:
    """A table of the scores of networks with these settings that left the target out, if a sweep evaluated them."""
    evaluations, left = _evaluated(config, request)
    for note in left:
        report.note(note)
    rows = table(evaluations, config.backbone)
    scored = {column for row in rows for column in row.scores}
    modes = [mode for mode in TRANSFERS if f"{mode}-multitask" in scored]
    if not modes:
        return []
    known = [f"{mode}-{source}" for mode in modes for source in (IMAGENET, START, "multitask")]
    columns = [column for column in known if column in scored]
    lines = [
        "",
        "## What to expect",
        "",
        f"Test scores, in percent, of networks with these settings (lr {rate(config.lr)}, tau {config.tau:g}) that had",
        "left the task out, and of the weights to compare with: mean ± standard deviation over seeds.",
        *_otherwise(config, request),
        "",
        f"| task | metric | {' | '.join(TITLES[column] for column in columns)} |",
        "|---|---|" + "--:|" * len(columns),
    ]
    for row in rows:
        scores = [row.scores.get(column) for column in columns]
        cells = [
            f"{s.mean:.2f} ± {s.spread:.2f}" if s and s.spread is not None else f"{s.mean:.2f}" if s else "not run"
            for s in scores
        ]
        lines.append(f"| {' | '.join([row.task, METRICS.get(row.metric, row.metric), *cells])} |")
    return lines


def _otherwise(config: FitConfig, request: ReleaseRequest) -> list[str]:
    """A sentence on the settings that were given in place of those of the sweep, if these determine the weights."""
    assert request.store is not None
    (base,) = _selected(request.store, config.backbone)
    theirs = {name: base[name] for name in request.settings if name not in INCIDENTAL and name in base}
    changed = [name for name, value in theirs.items() if value != getattr(config, name)]
    if not changed:
        return []
    they, this = (
        ", ".join(f"{name} {value}" for name, value in pairs)
        for pairs in ([(name, theirs[name]) for name in changed], [(name, getattr(config, name)) for name in changed])
    )
    return [f"They were trained with {they}, and this network with {this}: expect other scores of it."]


def _evaluated(config: FitConfig, request: ReleaseRequest) -> tuple[list[Evaluation], list[str]]:
    """The evaluations of the sweep's own runs of these settings, and those of the ImageNet weights that can be compared
    with them; notes on the others.
    """
    if request.store is None:
        return [], []
    known = request.store.planned()
    results = request.store.results(known)
    pools = _planned_sweep(request.store).pools
    pool = next((name for name, tasks in pools.items() if config.tasks and tasks == config.tasks), WHOLE)
    same = dataclasses.replace(Combination.of(config), pool=pool)
    store, ours = request.store, {Path(one.run).name for one in results.values() if one.combination == same}

    def own(one: Evaluation) -> bool:
        return one.source == "multitask" and store.own(one.run) in ours

    found = [one for one in read_evaluations(request.evaluations) if one.backbone == config.backbone]
    return comparable(
        [one for one in found if one.source == "imagenet" or own(one)], ours=own, sizes={config.backbone: config.size}
    )


def _check_licences(tasks: Sequence[Task], config: FitConfig, *, accepted: bool) -> None:
    """The check that `export` would make, but before days of training."""
    network = catalog.described(config.backbone, config.backbone_options) or config.backbone
    restricted = [with_licence(task.name, task.card.licence.name) for task in tasks if not task.card.licence.open]
    restricted += closed_start(network, config.weights)
    if restricted and not accepted:
        raise UsageError(
            licence_error(restricted),
            remedy="ask the owners; --accept-licence confirms that you may, or that you will not share the weights",
        )
