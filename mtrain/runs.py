"""Run folders: what a training run was asked for, how far it is, what it wrote.

runs/<name>/config.json          the configuration, versions, digests of the shards
            state.json           running | stopped | finished, and the iteration
            log.jsonl            one event a line
            checkpoints/         the last two
            shared.safetensors   the shared network's weights at the end
            adapter.safetensors  low-rank updates alone, of `--tune lora`
            heads.safetensors    the heads of the tasks at the end
            transfer/            results of `mtrain transfer`
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ValidationError

from dpconvert.names import plain
from dpconvert.runtime import locks
from mtrain.atomic import append_line, locked
from mtrain.backbones import catalog
from mtrain.backbones.card import BackboneCard
from mtrain.config import BEFORE, FitConfig
from mtrain.documents import known_document, read_document, write_document
from mtrain.errors import RunError, UsageError

# what JSON that is none of ours can raise when it is read and looked into
FOREIGN = (ValueError, KeyError, TypeError, OverflowError, RecursionError)

State = Literal["running", "stopped", "finished"]
LOCK_SECONDS = 1.0  # `mtrain runs` holds a lock for a moment to see whether it is free


@dataclass(frozen=True)
class Run:
    """One run folder."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def exists(self) -> bool:
        return (self.path / "config.json").is_file()

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def weights(self) -> Path:
        return self.path / "shared.safetensors"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter.safetensors"

    @property
    def heads(self) -> Path:
        return self.path / "heads.safetensors"

    def about(self) -> dict[str, Any]:
        """The content of config.json.

        Raises:
            RunError: absent, damaged or edited.
        """
        try:
            return read_document(self.path / "config.json", "put it back as it was, or train another run")
        except FileNotFoundError:
            raise RunError("not a run folder", where=self.path, remedy="`mtrain runs` lists them") from None

    def config(self) -> FitConfig:
        """What the run was asked for.

        Raises:
            RunError: absent or damaged.
        """
        try:
            return FitConfig.model_validate(BEFORE | self.about()["config"])
        except (ValidationError, KeyError, TypeError) as error:
            reason = str(error).partition("\n")[0]
            raise RunError(f"not the configuration of a run: {reason}", where=self.path / "config.json") from None

    def network(self) -> str | BackboneCard:
        """What its shared network is built from: the table that was stored with the run, or a name.

        Raises:
            RunError: absent or damaged.
        """
        stored = self.about().get("network")
        if stored is None:
            return self.config().backbone
        try:
            return BackboneCard.model_validate(stored)
        except ValidationError as error:
            reason = str(error).partition("\n")[0]
            raise RunError(f"not the table of a network: {reason}", where=self.path / "config.json") from None

    def left_out(self) -> list[str]:
        """Names of the tasks that left, related ones included."""
        return list(self.about().get("left_out", []))

    def trained_on(self) -> dict[str, tuple[str, ...]]:
        """Task of the pool -> those of its sets that were trained on. Older runs say it once for all tasks, or not at
        all: they trained on the training sets.
        """
        about = self.about()
        given = about.get("trained_on") or ["train"]
        by_task = given if isinstance(given, dict) else dict.fromkeys(about.get("pool", {}), given)
        return {task: tuple(sets) for task, sets in by_task.items()}

    def state(self) -> tuple[State, int]:
        """(state, iteration); a run whose process was killed is stopped, and so is one whose weights are gone."""
        try:
            content = known_document(self.path / "state.json") or {}
            state, iteration = content["state"], int(content["iteration"])
        except FOREIGN:
            return "stopped", 0
        if state not in get_args(State) or (state == "running" and not locks.is_held(self.lock)):
            state = "stopped"
        if state == "finished" and not self.weights.is_file():
            state = "stopped"
        return state, iteration

    def check_finished(self) -> None:
        """Nothing, if the training came to its end and left its weights.

        Raises:
            RunError: it did not.
        """
        state, iteration = self.state()
        if state != "finished":
            gone = state == "stopped" and iteration == self.config().iterations
            what = f"the weights of this run are gone: no {self.weights.name}" if gone else "this run has not finished"
            again = "make them again" if gone else "go on with it"
            remedy = f"{again}: mtrain fit --runs {self.path.parent} --run {self.name}"
            raise RunError(what, where=self.path, remedy=remedy)

    def check_trained_on(self, task: str) -> None:
        """Nothing, if the run trained on this task, or is of a version that did not say what it trained on.

        Raises:
            UsageError: it did not; names those that it did.
        """
        if pool := self.about().get("pool"):
            trained_task(pool, task, self.path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The only process in this run folder, which is made if need be, and taken away again if nothing came of it.

        Raises:
            RunError: another process is there.
        """
        taken, remedy = "another process is training this run", "wait for it, or name another --run"
        with locked(self.path, taken, remedy, wait=LOCK_SECONDS):
            try:
                yield
            finally:
                if not self.exists:
                    with suppress(OSError):  # not empty: not ours to remove
                        self.lock.unlink()
                        self.path.rmdir()

    @property
    def lock(self) -> Path:
        return self.path / locks.NAME

    def write(self, name: str, content: Any) -> None:
        """A JSON document of the run, atomically."""
        write_document(self.path / name, content)

    def log(self, event: dict[str, Any]) -> None:
        """Add a line to log.jsonl."""
        append_line(self.path / "log.jsonl", json.dumps(event, allow_nan=False))

    def events(self) -> list[dict[str, Any]]:
        """The lines of log.jsonl; what is no event is passed over, of a repeated iteration the last one counts."""
        try:
            lines = (self.path / "log.jsonl").read_text(errors="replace").splitlines()
        except OSError:
            return []
        seen: dict[tuple[str, int], dict[str, Any]] = {}
        for line in lines:
            try:
                event = json.loads(line)
                seen[str(event["event"]), int(event["iteration"])] = event
            except FOREIGN:
                continue
        return [seen[place] for place in sorted(seen, key=lambda place: place[1])]


@dataclass(frozen=True)
class Start(Run):
    """A network that no run has trained, to be scored as it is: `path` is where results of it lie; `asked` says which
    network it is, from which weights, for images of which size.
    """

    asked: FitConfig

    @property
    def name(self) -> str:
        return catalog.slug(self.asked.backbone)

    def about(self) -> dict[str, Any]:
        """As that of a run that has trained on nothing."""
        card = catalog.described(self.asked.backbone, self.asked.backbone_options)
        return {"network": card.model_dump(mode="json")} if card else {}

    def config(self) -> FitConfig:
        return self.asked

    def trained_on(self) -> dict[str, tuple[str, ...]]:
        return {}

    def check_finished(self) -> None:
        """Raises:
        UsageError: no run has trained it.
        """
        raise UsageError(f"{self.name} is no run: nothing has trained it", remedy="name a run with --run")


def start_of(runs: Path, asked: FitConfig) -> Start:
    """The network that `asked` names; its results lie beside the runs."""
    card = catalog.described(asked.backbone, asked.backbone_options)
    known = json.dumps([asked.backbone, asked.size, card.determining() if card else None], sort_keys=True)
    digest = hashlib.sha256(known.encode()).hexdigest()[:8]
    return Start(runs / f".network-{catalog.slug(asked.backbone)}-{digest}", asked)


def open_run(runs: Path, name: str) -> Run:
    """The run of that name, or at that path.

    Raises:
        RunError: there is none; names those there are.
    """
    for run in (Run(runs / name), Run(Path(name))):
        if run.exists:
            return run
    have = ", ".join(run.name for run in all_runs(runs))
    remedy = f"there: {have}" if have else "there is none; make one with `mtrain fit`, or name their folder with --runs"
    raise RunError(f"no run named {name!r}", where=runs, remedy=remedy)


def newest_run(runs: Path) -> Run:
    """The run that was worked on last.

    Raises:
        RunError: there is none.
    """
    found = all_runs(runs)
    if not found:
        raise RunError("no run here", where=runs, remedy="make one with `mtrain fit`, or name their folder with --runs")
    return found[-1]


def all_runs(runs: Path) -> list[Run]:
    """Every run folder, the one worked on last at the end."""
    found = [path.parent for path in runs.glob("*/config.json")]
    return [Run(path) for path in sorted(found, key=lambda p: ((p / "config.json").stat().st_mtime_ns, p.name))]


def named_run(runs: Path, name: str) -> Run:
    """The run of that name, which need not exist.

    Raises:
        UsageError: not the name of a folder.
    """
    if name != Path(name).name or name.startswith("."):
        raise UsageError(f"{name!r} is no name for a run", remedy="give a plain name, and the folder with --runs")
    return Run(runs / name)


def trained_task(tasks: Iterable[str], name: str, path: Path) -> str:
    """Which of the tasks of the run at `path` is called `name`, without regard to case, `-` and `_`.

    Raises:
        UsageError: none is.
    """
    by_name = {plain(task): task for task in tasks}
    found = by_name.get(plain(name))
    if found is None:
        raise UsageError(
            f"this run has no head of {name!r}: it was not trained on it", where=path,
            remedy=f"name one of its tasks: {', '.join(by_name.values())}",
        )  # fmt: skip
    return found


def new_name(runs: Path, config: FitConfig) -> str:
    """A readable name that is free: <backbone>-without-<tasks>-001."""
    left = ("without", *config.leave_out) if config.leave_out else ()
    stem = "-".join((catalog.slug(config.backbone), *left))
    number = 1
    while (runs / f"{stem}-{number:03}").exists():
        number += 1
    return f"{stem}-{number:03}"
