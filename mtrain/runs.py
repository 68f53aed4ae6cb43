"""Run folders: what a training run was asked for, how far it is, what it wrote.

    runs/<name>/config.json          the configuration, versions, digests of the shards
                state.json           running | stopped | finished, and the iteration
                log.jsonl            one event a line
                checkpoints/         the last two
                shared.safetensors   the shared network's weights at the end
                transfer/            results of `mtrain transfer`
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mtrain.errors import RunError

State = Literal["running", "stopped", "finished"]


class FitConfig(BaseModel):
    """All that decides a training run, and some things that do not (`FREE`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shards: str = "shards"
    leave_out: tuple[str, ...] = ()
    backbone: str = "densenet121"
    weights: str = "imagenet"
    iterations: int = Field(50_000, ge=1)
    warmup: int = Field(5_000, ge=0)
    warmup_lr: float = Field(1e-3, gt=0)
    lr: float = Field(1e-4, gt=0)
    tau: float = Field(5.0, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    batch: int = Field(64, ge=1)
    size: int = Field(224, ge=16)
    adapt_batches: int = Field(20, ge=0)
    seed: int = Field(0, ge=0)
    device: str = "auto"
    workers: int = Field(2, ge=0)
    checkpoint_every: int = Field(1_000, ge=1)
    validate_every: int = Field(5_000, ge=0)
    log_every: int = Field(50, ge=1)


FREE = {"shards", "workers", "checkpoint_every", "validate_every", "log_every", "device"}


@dataclass(frozen=True)
class Run:
    """One run folder."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def about(self) -> dict[str, Any]:
        """The content of config.json.

        Raises:
            RunError: absent or damaged.
        """
        try:
            content = json.loads((self.path / "config.json").read_bytes())
        except (OSError, ValueError) as error:
            raise RunError(f"not a run folder: {error}", where=self.path, remedy="`mtrain runs` lists them") from None
        if not isinstance(content, dict):
            raise RunError("config.json is not that of a run", where=self.path)
        return content

    def config(self) -> FitConfig:
        """What the run was asked for."""
        try:
            return FitConfig.model_validate(self.about()["config"])
        except (ValidationError, KeyError) as error:
            raise RunError("config.json is not that of a run", where=self.path, found=str(error).split("\n")[0]) from None

    def left_out(self) -> list[str]:
        """Names of the tasks that left, related ones included."""
        return list(self.about().get("left_out", []))

    def state(self) -> tuple[State, int]:
        """(state, iteration)."""
        try:
            content = json.loads((self.path / "state.json").read_bytes())
            return content["state"], int(content["iteration"])
        except (OSError, ValueError, KeyError, TypeError):
            return "stopped", 0

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def weights(self) -> Path:
        return self.path / "shared.safetensors"

    def write(self, name: str, content: Any) -> None:
        """A JSON file of the run, atomically."""
        write_json(self.path / name, content)

    def log(self, event: dict[str, Any]) -> None:
        """Add a line to log.jsonl."""
        with (self.path / "log.jsonl").open("a") as file:
            file.write(json.dumps(event) + "\n")

    def events(self) -> list[dict[str, Any]]:
        """The lines of log.jsonl; a cut last line is passed over, of a repeated iteration the last one counts."""
        try:
            lines = (self.path / "log.jsonl").read_text().splitlines()
        except OSError:
            return []
        seen: dict[tuple[str, int], dict[str, Any]] = {}
        for line in lines:
            try:
                event = json.loads(line)
                seen[event["event"], event["iteration"]] = event
            except (ValueError, KeyError, TypeError):
                continue
        return sorted(seen.values(), key=lambda e: e["iteration"])


def open_run(runs: Path, name: str) -> Run:
    """The run of that name, or at that path.

    Raises:
        RunError: there is none; names those there are.
    """
    for path in (runs / name, Path(name)):
        if (path / "config.json").is_file():
            return Run(path)
    have = ", ".join(run.name for run in all_runs(runs)) or "none"
    raise RunError(f"no run named {name!r}", where=runs, remedy=f"there: {have}")


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


def new_name(runs: Path, config: FitConfig) -> str:
    """A readable name that is free: <backbone>-without-<tasks>-001."""
    left = "-".join(config.leave_out)
    stem = "-".join(filter(None, [config.backbone.replace(":", "-").replace("/", "-"), "without" if left else "", left]))
    number = 1
    while (runs / f"{stem}-{number:03}").exists():
        number += 1
    return f"{stem}-{number:03}"


def write_json(path: Path, content: Any) -> None:
    """A JSON file that appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)
