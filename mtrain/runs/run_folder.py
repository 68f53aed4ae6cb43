"""Run folders: the configuration of a training run, its progress and its results.

runs/<name>/config.json          configuration, versions, digests of the shards
            state.json           running | stopped | finished, and the iteration
            log.jsonl            one event per line
            checkpoints/         the two newest
            shared.safetensors   weights of the finished shared network
            adapter.safetensors  low-rank updates only, of `--tune lora`
            heads.safetensors    the finished heads of the tasks
            dense.safetensors    the finished decoder of masks and points, of a run with --dense
            transfer/            results of `mtrain transfer`
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ValidationError

from dpconvert.names import plain
from dpconvert.runtime import locks
from dpconvert.validation_errors import first_fault
from mtrain.backbones.card import BackboneCard
from mtrain.config import FitConfig
from mtrain.data.choice import Choice
from mtrain.disk.atomic import locked
from mtrain.disk.documents import known_document, read_document, write_document
from mtrain.errors import RunError, UsageError
from mtrain.runs import event_log
from mtrain.runs.event_log import FOREIGN
from mtrain.runs.seen import Seen
from mtrain.setting_roles import BEFORE

RunState = Literal["running", "stopped", "finished"]
NO_RUNS = "train one with `mtrain fit`, or give the folder of your runs with --runs"
EVENTS, STATE = "log.jsonl", "state.json"
SOUP = "soup"  # entry of config.json of a run that was not trained, but made of other runs
LOCK_SECONDS = 1.0  # `mtrain runs` briefly takes each lock to see whether it is free


@dataclass(frozen=True)
class Run:
    """One run folder. title: what its lines on the terminal call it, where its name says nothing to a person."""

    path: Path
    title: str = field(default="", compare=False, kw_only=True)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def label(self) -> str:
        """What to call the run on the terminal."""
        return self.title or self.name

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

    @property
    def dense(self) -> Path:
        """The decoder of masks and points, of a run that trained one."""
        return self.path / "dense.safetensors"

    def about(self) -> dict[str, Any]:
        """The content of config.json.

        Raises:
            RunError: the file is absent, damaged or edited.
        """
        try:
            return read_document(self.path / "config.json", self._remedy)
        except FileNotFoundError:
            raise RunError("not a run folder", where=self.path, remedy="`mtrain runs` lists them") from None

    @property
    def _remedy(self) -> str:
        if self.path.parent.name.startswith("."):  # a run that another command has trained, as `influence --verify`
            return "remove this run's folder and run the command again, which trains it again"
        return "restore the original file, or train another run"

    def config(self) -> FitConfig:
        """The configuration that the run was started with.

        Raises:
            RunError: config.json is absent or damaged.
        """
        try:
            return FitConfig.model_validate(BEFORE | self.about()["config"])
        except ValidationError as error:
            fault, path = first_fault(error, FitConfig), self.path / "config.json"
            raise RunError(f"not a run's configuration: {fault}", where=path, found=fault.found) from None
        except (KeyError, TypeError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
            raise RunError(f"not a run's configuration: {reason}", where=self.path / "config.json") from None

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

    def choice(self) -> Choice | None:
        """How the tasks of its pool were chosen; None if all were taken that are not left out.

        Raises:
            RunError: config.json is absent or damaged.
        """
        recorded = self.about().get("choice")
        try:
            return None if recorded is None else Choice.model_validate(recorded)
        except ValidationError as error:
            fault = first_fault(error, Choice)
            raise RunError(f"not a choice of tasks: {fault}", where=self.path / "config.json") from None

    def left_out(self) -> list[str]:
        """Names of the tasks left out, including related ones."""
        return list(self.about().get("left_out", []))

    def trained_on(self) -> dict[str, tuple[str, ...]]:
        """Task of the pool -> the sets of it that were trained on. Older runs record one list for all tasks, or none:
        these trained on the training sets.
        """
        about = self.about()
        recorded = about.get("trained_on") or ["train"]
        by_task = recorded if isinstance(recorded, dict) else dict.fromkeys(about.get("pool", {}), recorded)
        return {task: tuple(sets) for task, sets in by_task.items()}

    def started_from(self) -> Seen:
        """What the weights that the run began from had been trained on."""
        return Seen.of(self.about().get("start") or {})

    def seen(self) -> Seen:
        """What the run's weights were trained on: its own sets, and those of what it began from."""
        own = Seen.of(self.about())
        return Seen(self.trained_on(), own.related, own.restricted) | self.started_from()

    def state(self) -> tuple[RunState, int]:
        """(state, iteration). A run counts as stopped if its process was killed or its weights are missing."""
        try:
            content = known_document(self.path / STATE) or {}
            state, iteration = content["state"], int(content["iteration"])
        except FOREIGN:
            return "stopped", 0
        if state not in get_args(RunState) or (state == "running" and not locks.is_held(self.lock)):
            state = "stopped"
        if state == "finished" and not self.weights.is_file():
            state = "stopped"
        return state, iteration

    def check_finished(self) -> None:
        """Check that the training is finished and its weights exist.

        Raises:
            RunError: the run is not finished, or its weights are missing.
        """
        state, iteration = self.state()
        if state != "finished":
            lost = state == "stopped" and iteration == self.config().iterations
            gone = f"the weights of this run are missing: no {self.weights.name}"
            what, action = (gone, "restore them") if lost else ("this run is not finished", "resume it")
            remedy = f"{action} with: mtrain fit --runs {self.path.parent} --run {self.name}"
            if SOUP in self.about():  # which no training resumes
                remedy = "remove this run, and make it again with `mtrain soup`"
            raise RunError(what, where=self.path, remedy=remedy)

    def check_trained_on(self, task: str) -> None:
        """Check that the run trained on this task. Runs of versions that did not record their tasks pass.

        Raises:
            UsageError: it did not; the message lists the tasks that it trained on.
        """
        if pool := self.about().get("pool"):
            trained_task(pool, task, self.path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of this run folder. The folder is created if necessary, and removed again if it stays empty.

        Raises:
            RunError: another process holds the lock.
        """
        taken, remedy = "another process is training this run", "wait until it ends, or give another --run"
        with locked(self.path, taken, remedy, wait=LOCK_SECONDS):
            try:
                yield
            finally:
                if not self.exists:
                    with suppress(OSError):  # not empty: it holds files that are not ours
                        self.lock.unlink()
                        self.path.rmdir()

    @contextmanager
    def removed_if_empty(self) -> Iterator[None]:
        """Remove the folder at the end if nothing was written to it."""
        try:
            yield
        finally:
            with suppress(OSError):
                self.path.rmdir()

    @property
    def lock(self) -> Path:
        return self.path / locks.NAME

    def write(self, name: str, content: Any) -> None:
        """Write a JSON document of the run atomically."""
        write_document(self.path / name, content)

    def log(self, event: dict[str, Any]) -> None:
        """Append a line to log.jsonl."""
        event_log.append(self.path / EVENTS, event)

    def events(self) -> list[dict[str, Any]]:
        """The events of log.jsonl by iteration. Invalid lines are ignored; of a repeated iteration the last counts."""
        return event_log.events(self.path / EVENTS)

    def forget_events_after(self, iteration: int) -> None:
        """Remove the events of later iterations from log.jsonl: a resumed training logs them again."""
        event_log.cut(self.path / EVENTS, iteration)


def trained_task(tasks: Iterable[str], name: str, path: Path) -> str:
    """The task of the run at `path` that is called `name`, ignoring case, `-` and `_`.

    Raises:
        UsageError: there is none.
    """
    by_name = {plain(task): task for task in tasks}
    task = by_name.get(plain(name))
    if task is None:
        raise UsageError(
            f"this run has no head for {name!r}: it was not trained on that task",
            where=path,
            remedy=f"choose one of its tasks: {', '.join(by_name.values())}",
        )
    return task
