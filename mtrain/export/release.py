"""The networks to give away: chosen settings in, networks trained on all data (train, val and test of every task) out.

This is the paper's last step (PROTOCOL 6): it comes after every choice, so nothing that it trains on can be evaluated
on any more. Scores on its card are those of networks with the same settings which had not seen the target.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dpconvert.runtime.progress import Reporter
from mtrain.atomic import write_text
from mtrain.backbones import catalog
from mtrain.checksums import write_sums
from mtrain.config import FitConfig
from mtrain.data.pool import Permit, Pool, Task, fetch_shards, open_pool, training_on, with_test
from mtrain.documents import write_document
from mtrain.errors import RunError, UsageError
from mtrain.evaluation.paper_tables import TRANSFERS, Evaluation, read_evaluations, table
from mtrain.export import Exported, closed_start, export, modelcard
from mtrain.runs import Run, State
from mtrain.sweep.spec import Combination, Sweep, rate
from mtrain.sweep.store import SELECTED, Store
from mtrain.train.fit import fit

SPLITS = ("train", "val", "test")
# what the authors released their networks with, where nothing else is asked for
DENSENET = {"lr": 1e-4, "tau": 5.0}
RELEASED = {"mtdp_densenet121": DENSENET, "densenet121": DENSENET, "resnet50": {"lr": 1e-3, "tau": 1.0}}


@dataclass(frozen=True)
class Asked:
    """What to release: settings of the training, seeds, where its runs and the released folders go."""

    shards: str
    settings: dict[str, Any]
    seeds: tuple[int, ...] = (0,)
    runs: Path = Path("runs")
    out: Path = Path("release")
    store: Store | None = None
    evaluations: Path = Path("evaluations")
    accepted: bool = False


def release(asked: Asked, report: Reporter) -> tuple[State, list[Exported]]:
    """Train one network a seed (and, of a sweep, a backbone), and export each; those that are there are not made again.

    Raises:
        UsageError: settings that are none, or data whose licence stands against it.
        RunError: nothing has been selected in the sweep, or a run that cannot go on.
    """
    pool = whole(open_pool(asked.shards))
    chosen, made = configs(asked), list[Exported]()
    _check_licences(pool.tasks, chosen, accepted=asked.accepted)
    fetch_shards(pool.tasks, SPLITS, report)
    for config in chosen:
        run = Run(asked.runs / _name(config, pool))
        if fit(config, run, report, pool=pool) == "stopped":
            return "stopped", made
        made.append(_exported(run, config, pool, asked))
        report.note(f"{run.name}: {', '.join(made[-1].files)} -> {made[-1].folder}")
    return "finished", made


def whole(pool: Pool) -> Pool:
    """The pool with everything that its tasks have as their training sets, and nothing else."""
    complete = tuple(with_test(task, Permit.RELEASE) for task in pool.tasks)
    return training_on(dataclasses.replace(pool, tasks=complete), SPLITS)


def configs(asked: Asked) -> list[FitConfig]:
    """A training a backbone and seed.

    Raises:
        UsageError: no such setting, or a value that it cannot have.
        RunError: nothing has been selected in the sweep.
    """
    found, plain = [], FitConfig.model_fields["backbone"].default
    for base in [{}] if asked.store is None else _selected(asked.store, asked.settings.get("backbone")):
        defaults = {} if base else RELEASED.get(asked.settings.get("backbone", plain), {})
        always = {"shards": asked.shards, "leave_out": (), "validate_every": 0, "train_on": "+".join(SPLITS)}
        for seed in asked.seeds:
            try:
                found.append(FitConfig.model_validate(defaults | base | asked.settings | always | {"seed": seed}))
            except ValidationError as error:
                problem = error.errors()[0]
                option = "--" + str(problem["loc"][0]).replace("_", "-")
                raise UsageError(f"{option}: {problem['msg'].lower()}", found=problem["input"]) from None
    if any(config.stream for config in found):
        raise UsageError("a release reads all splits by offset: it cannot stream", remedy="leave --stream away")
    return found


def sweep_shards(store: Store) -> str:
    """Where the shards of a sweep lie.

    Raises:
        RunError: not the folder of a sweep.
    """
    return _planned_sweep(store).shards


def _planned_sweep(store: Store) -> Sweep:
    path, content = store.path / "sweep.json", store.plan()
    try:
        return Sweep.model_validate(content["sweep"])
    except (ValueError, KeyError, TypeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        raise RunError(f"not what a sweep writes: {reason}", where=path, remedy="plan the sweep again") from None


def _selected(store: Store, backbone: str | None) -> list[dict[str, Any]]:
    """The settings of a sweep's best combination over all its tasks, of each network or of the one that is named."""
    path, selection = store.path / SELECTED, store.selection()
    try:
        chosen = selection["over_all_tasks"]
        combinations = [
            Combination(**{field.name: one[field.name] for field in dataclasses.fields(Combination)})
            for name, one in chosen.items() if one is not None and backbone in (None, name)
        ]  # fmt: skip
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        raise RunError(f"no selection: {reason}", where=path, remedy="run `mtrain select` again") from None
    if not combinations:
        have = ", ".join(chosen) or "none"
        raise UsageError(f"no combination is chosen for {backbone}", where=path, remedy=f"there: {have}")
    sweep = _planned_sweep(store)
    settings = [sweep.config(combination, (), 0).model_dump() for combination in combinations]
    return [{name: value for name, value in one.items() if name != "seed"} for one in settings]


def _name(config: FitConfig, pool: Pool) -> str:
    """A folder's name that says what it is, and is another one for other data or settings."""
    known = json.dumps([config.determining(), config.weights, pool.digest], sort_keys=True, default=str)
    plain = catalog.slug(config.backbone)
    return f"release-{plain}-seed{config.seed}-{hashlib.sha256(known.encode()).hexdigest()[:8]}"


def _exported(run: Run, config: FitConfig, pool: Pool, asked: Asked) -> Exported:
    made = export(run, "safetensors", asked.out / run.name, accepted=asked.accepted)
    sizes = {task.name: len(task.rows["train"]) for task in pool.tasks}
    about = {"config": config.model_dump(mode="json"), "pool": pool.digest, "tasks": sizes, "splits": list(SPLITS)}
    write_document(made.folder / "release.json", about | {"selected_in": asked.store.name if asked.store else None})
    card = made.folder / modelcard.NAME
    text = card.read_text(encoding="utf-8")
    write_text(card, text + "\n".join(["", *_about_data(sizes), *_scores(config, asked)]) + "\n")
    write_sums(made.folder, (modelcard.NAME, "release.json"))
    return dataclasses.replace(made, files=(*made.files, "release.json"))


def _about_data(sizes: dict[str, int]) -> list[str]:
    total = f"{sum(sizes.values()):,}".replace(",", " ")
    return [
        "## All data",
        "",
        f"Trained on the train, validation and test sets of every task, {total} pictures: scores on any of these tasks",
        "say nothing about it. Evaluate it on data that are not in the table above.",
    ]


def _scores(config: FitConfig, asked: Asked) -> list[str]:
    """Of networks with these settings that had left the target out, where a sweep has evaluated them."""
    rows = table(_evaluated(config, asked), config.backbone)
    columns = [f"{mode}-{source}" for mode in TRANSFERS for source in ("imagenet", "multitask")]
    if not any(f"{mode}-multitask" in row.scores for row in rows for mode in TRANSFERS):
        return []
    lines = [
        "", "## What to expect", "",
        f"Test scores, in percent, of networks with these settings (lr {rate(config.lr)}, tau {config.tau:g}) that had",
        "left the task out, and of the ImageNet weights: mean ± standard deviation over seeds.", "",
        f"| task | metric | {' | '.join(column.replace('-', ', ') for column in columns)} |",
        "|---|---|" + "--:|" * len(columns),
    ]  # fmt: skip
    for row in rows:
        scores = [row.scores.get(column) for column in columns]
        cells = [
            f"{s.mean:.2f} ± {s.spread:.2f}" if s and s.spread is not None else f"{s.mean:.2f}" if s else ""
            for s in scores
        ]
        lines.append(f"| {' | '.join([row.task, row.metric, *cells])} |")
    return lines


def _evaluated(config: FitConfig, asked: Asked) -> Iterable[Evaluation]:
    """The evaluations of the sweep's own runs of these settings, and of the ImageNet weights."""
    if asked.store is None:
        return
    known = asked.store.planned()
    results = asked.store.results(known)
    same = Combination(config.backbone, config.lr, config.tau, config.warmup > 0)
    ours = {(asked.store.path / one.run).resolve() for one in results.values() if one.combination == same}
    for one in read_evaluations(asked.evaluations):
        if one.source == "imagenet" or (one.run is not None and Path(one.run).resolve() in ours):
            yield one


def _check_licences(tasks: Sequence[Task], configs: Sequence[FitConfig], *, accepted: bool) -> None:
    """Before days of training, what `export` would say after them."""
    closed = [task.name for task in tasks if not task.card.licence.open]
    for config in {config.backbone: config for config in configs}.values():
        network = catalog.described(config.backbone, config.backbone_options) or config.backbone
        closed += closed_start(network, config.weights)
    if closed and not accepted:
        raise UsageError(
            f"the licences of {', '.join(closed)} do not let everyone pass on what is made of them",
            remedy="ask their owners; with --accept-licence you say that you may, or that it stays with you",
        )
