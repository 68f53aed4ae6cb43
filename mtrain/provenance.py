"""What a run is made of: settings, digests of shards, versions, state of the code; and whether it is the same run."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from dpconvert.plural import counted
from mtrain.backbones.card import BackboneCard
from mtrain.config import INCIDENTAL, FitConfig, choices_off
from mtrain.data.pool import Pool, Task
from mtrain.errors import RunError
from mtrain.runs import Run
from mtrain.versions import versions

GIT_SECONDS = 10


def about(
    config: FitConfig, pool: Pool, left: Sequence[Task], ranks: int, network: str | BackboneCard | None = None
) -> dict[str, Any]:
    """The content of a run's config.json. network: the table of its backbone, if it has one."""
    described = {"network": network.model_dump(mode="json")} if isinstance(network, BackboneCard) else {}
    return {
        "config": config.model_dump(mode="json"),
        **described,
        "pool": {task.name: task.card.digest for task in pool.tasks},
        "left_out": [task.name for task in left],
        "trained_on": {task.name: list(task.trains) for task in pool.tasks},
        "ranks": ranks,
        "versions": versions(),
        "git": git_state(),
    }


def git_state() -> dict[str, Any] | None:
    """Commit of the working directory's checkout, and whether its files differ from it; None where there is none."""
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return None if commit is None or changed is None else {"commit": commit.strip(), "dirty": bool(changed.strip())}


def _git(*words: str) -> str | None:
    # a checkout that came with data may name a program to ask for changes
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", *words]
    try:
        done = subprocess.run(command, capture_output=True, timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")


def check_same(run: Run, about: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings or shards, by name of what differs.

    Raises:
        RunError: something that enters the weights differs.
    """
    there = run.about()
    settings, pool = choices_off() | there.get("config", {}), there.get("pool", {})
    differ = [
        f"{name} ({settings.get(name)!r} there, {value!r} asked for)"
        for name, value in about["config"].items()
        if name not in INCIDENTAL and settings.get(name) != value
    ]
    if _table(there) != _table(about):
        differ.append("the table of the backbone")
    if there.get("left_out") != about["left_out"]:
        wordings = [", ".join(names) or "none" for names in (there.get("left_out", []), about["left_out"])]
        differ.append("tasks left out ({} there, {} asked for)".format(*wordings))
    changed = sorted(name for name in pool.keys() & about["pool"].keys() if pool[name] != about["pool"][name])
    if changed:
        differ.append(f"the shards of {', '.join(changed)}")
    if not differ and pool.keys() != about["pool"].keys():
        differ.append(f"the tasks of the pool ({', '.join(sorted(pool.keys() ^ about['pool'].keys()))})")
    if any(list(sets) != about["trained_on"].get(name, list(sets)) for name, sets in run.trained_on().items()):
        differ.append("the sets that train")
    if differ:
        raise RunError(
            f"this run has other settings: {'; '.join(differ)}", where=run.path,
            remedy="give the run's own settings to go on with it, or another --run name",
        )  # fmt: skip


def _table(content: Mapping[str, Any]) -> str | None:
    stored = content.get("network")
    return None if stored is None else BackboneCard.model_validate(stored).digest


def other_division(run: Run, about: Mapping[str, Any]) -> str | None:
    """What to say when a run goes on with its batches divided otherwise than before."""
    there, here = (_division(content) for content in (run.about(), about))
    if there == here:
        return None
    parts, before = (ranks * accumulated for ranks, accumulated in (here, there))
    effect = "its sums are rounded differently from now on"
    if parts != before:
        effect += f", and batch normalization sees 1/{parts} of a batch at a time instead of 1/{before}"
        effect += ", unless --sync-batchnorm" if here[0] > 1 or there[0] > 1 else ""
    before_words, words = (f"{counted(ranks, 'process')} x {parts}" for ranks, parts in (there, here))
    return f"{run.name}: batches were divided into {before_words} parts, now {words}: {effect}"


def _division(content: Mapping[str, Any]) -> tuple[int, int]:
    return int(content.get("ranks", 1)), int(content.get("config", {}).get("accumulate", 1))
