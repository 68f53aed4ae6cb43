"""The provenance of a run (settings, digests of shards, versions, state of the code), and whether two are the same."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from dpconvert.plural import counted
from mtrain.backbones.card import BackboneCard
from mtrain.config import FitConfig, choices_off
from mtrain.data.choice import Choice
from mtrain.data.pool import Pool
from mtrain.data.task import Task
from mtrain.errors import RunError
from mtrain.runs.run_folder import Run
from mtrain.runs.seen import RESTRICTED, Seen, Terms, closed
from mtrain.setting_roles import INCIDENTAL
from mtrain.versions import versions

GIT_SECONDS = 10


def about(
    config: FitConfig,
    pool: Pool,
    left: Sequence[Task],
    ranks: int,
    start: Seen,
    network: str | BackboneCard | None = None,
    choice: Choice | None = None,
) -> dict[str, Any]:
    """The content of a run's config.json. start: what the initial weights were trained on. network: the table of the
    backbone, if it has one. choice: how the tasks of the pool were chosen, if they were.
    """
    described = {"network": network.model_dump(mode="json")} if isinstance(network, BackboneCard) else {}
    licences: dict[str, Terms] = {task.name: task.card.licence for task in pool.tasks}
    licences |= licence_of_start(network, config.weights)
    restricted = Seen(restricted=closed(licences)).json().get(RESTRICTED)
    return {
        "config": config.model_dump(mode="json"),
        **described,
        **({"choice": choice.model_dump(mode="json")} if choice else {}),
        "pool": {task.name: task.card.digest for task in pool.tasks},
        "left_out": [task.name for task in left],
        "trained_on": {task.name: list(task.trains) for task in pool.tasks},
        "related": {task.name: list(task.card.related) for task in (*pool.tasks, *left) if task.card.related},
        **({RESTRICTED: restricted} if restricted else {}),
        "start": start.json(),
        "ranks": ranks,
        "versions": versions(),
        "git": git_state(),
    }


def licence_of_start(network: str | BackboneCard | None, weights: str) -> dict[str, Terms]:
    """What a training begins from -> its licence; empty for random weights, and for networks that have no table."""
    if not isinstance(network, BackboneCard) or not network.licensed or weights == "random":
        return {}
    return {f"the weights of {network.name}": network.licence}


def git_state() -> dict[str, Any] | None:
    """Commit of the working directory's checkout, and whether its files differ from it; None where there is none."""
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return None if commit is None or changed is None else {"commit": commit.strip(), "dirty": bool(changed.strip())}


def _git(*words: str) -> str | None:
    # the configuration of an untrusted checkout may name a program that git would run to list changes
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", *words]
    try:
        done = subprocess.run(command, capture_output=True, timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")


def check_same(run: Run, about: Mapping[str, Any]) -> None:
    """Refuse to resume a run with other settings or shards.

    Raises:
        RunError: something that determines the weights differs; the message lists it.
    """
    existing = run.about()
    settings, pool = choices_off() | existing.get("config", {}), existing.get("pool", {})
    differ = [
        f"{name} ({settings.get(name)!r} in the run, {value!r} requested)"
        for name, value in about["config"].items()
        if name not in INCIDENTAL
        and settings.get(name) != value
        and not (name == "drop" and _same_advice(existing, about))
    ]
    if _table(existing) != _table(about):
        differ.append("the table of the backbone")
    if existing.get("left_out") != about["left_out"]:
        lists = [", ".join(names) or "none" for names in (existing.get("left_out", []), about["left_out"])]
        differ.append("tasks left out ({} in the run, {} requested)".format(*lists))
    changed = sorted(name for name in pool.keys() & about["pool"].keys() if pool[name] != about["pool"][name])
    if changed:
        differ.append(f"the shards of {', '.join(changed)}")
    if not differ and pool.keys() != about["pool"].keys():
        differ.append(f"the tasks of the pool ({', '.join(sorted(pool.keys() ^ about['pool'].keys()))})")
    if any(list(sets) != about["trained_on"].get(name, list(sets)) for name, sets in run.trained_on().items()):
        differ.append("the sets trained on")
    if differ:
        raise RunError(
            f"this run has other settings: {'; '.join(differ)}",
            where=run.path,
            remedy="give the run's own settings to resume it, or another --run name",
        )


def _same_advice(existing: Mapping[str, Any], about: Mapping[str, Any]) -> bool:
    """Whether both chose their tasks by a file of the same content, wherever it lies by now."""
    one, other = ((content.get("choice") or {}).get("document") for content in (existing, about))
    return one is not None and one == other


def _table(content: Mapping[str, Any]) -> str | None:
    stored = content.get("network")
    return None if stored is None else BackboneCard.model_validate(stored).digest


def other_division(run: Run, about: Mapping[str, Any]) -> str | None:
    """A note if a run is resumed with its batches divided differently than before; None if they are not."""
    old, new = (_division(content) for content in (run.about(), about))
    if old == new:
        return None
    old_parts, new_parts = (ranks * accumulated for ranks, accumulated in (old, new))
    effect = "its sums are rounded differently from now on"
    if new_parts != old_parts:
        effect += f", and batch normalization sees 1/{new_parts} of a batch at a time instead of 1/{old_parts}"
        effect += ", unless --sync-batchnorm is given" if max(old[0], new[0]) > 1 else ""
    old_text, new_text = (f"{counted(ranks, 'process')} x {parts}" for ranks, parts in (old, new))
    return f"{run.name}: batches were divided into {old_text} parts, now {new_text}: {effect}"


def _division(content: Mapping[str, Any]) -> tuple[int, int]:
    """(ranks, micro-batches per rank)"""
    return int(content.get("ranks", 1)), int(content.get("config", {}).get("accumulate", 1))
