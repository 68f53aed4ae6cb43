"""Sends the numbers of a training's log to Weights & Biases or MLflow, beside the files of the run.

The services are configured as usual, by their environment variables: WANDB_PROJECT, WANDB_MODE=offline,
MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME. A resumed run continues the same run of the service.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

from mtrain.disk.documents import known_document
from mtrain.errors import RunError
from mtrain.runs.run_folder import Run
from mtrain.services import check_installed

PROJECT = "mtrain"
KNOWN = "tracking.json"  # service -> the run's identifier there
LONGEST = 500  # characters of a setting that MLflow takes

MLFLOW_STORES = (
    "set MLFLOW_TRACKING_URI to a server, to a folder with MLFLOW_ALLOW_FILE_STORE=true, or to a database, which needs "
    "the whole package: pip install mlflow"
)

Settings = Mapping[str, bool | float | str]


class Tracker(Protocol):
    """One service."""

    def log(self, numbers: Mapping[str, float], iteration: int) -> None:
        """Send the numbers of an event."""

    def close(self, *, failed: bool) -> None:
        """End the session."""


class Wandb:
    """Weights & Biases."""

    def __init__(self, run: Run, settings: Settings) -> None:
        import wandb
        from wandb.errors import Error

        identifier = _identifier(run, "wandb") or uuid.uuid4().hex
        _remember(run, "wandb", identifier)
        with _opening("wandb", Error, "log in with `wandb login`, or set WANDB_MODE=offline"):
            self.session = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                id=identifier,
                name=run.name,
                config=dict(settings),
                dir=str(run.path),
                resume="allow",
            )
        self.session.define_metric("*", step_metric="iteration")

    def log(self, numbers: Mapping[str, float], iteration: int) -> None:
        self.session.log({**numbers, "iteration": iteration})

    def close(self, *, failed: bool) -> None:
        self.session.finish(exit_code=int(failed))


class Mlflow:
    """MLflow."""

    def __init__(self, run: Run, settings: Settings) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        with _opening("mlflow", MlflowException, MLFLOW_STORES):
            self.client = MlflowClient()
            self._open(run, settings)

    def _open(self, run: Run, settings: Settings) -> None:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self.client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self.client.create_experiment(name)
        identifier = _identifier(run, "mlflow")
        self.identifier = identifier or self.client.create_run(number, run_name=run.name).info.run_id
        if identifier is None:
            _remember(run, "mlflow", self.identifier)
            for setting, value in settings.items():
                self.client.log_param(self.identifier, setting, str(value)[:LONGEST])
        self.client.update_run(self.identifier, status="RUNNING")

    def log(self, numbers: Mapping[str, float], iteration: int) -> None:
        for name, number in numbers.items():
            self.client.log_metric(self.identifier, name, number, step=iteration)

    def close(self, *, failed: bool) -> None:
        self.client.set_terminated(self.identifier, "FAILED" if failed else "FINISHED")


TRACKERS: dict[str, type[Wandb | Mlflow]] = {"wandb": Wandb, "mlflow": Mlflow}


@contextmanager
def tracking(names: Sequence[str], run: Run, settings: Settings) -> Iterator[list[Tracker]]:
    """The services of these names, with a session for the run.

    Raises:
        UsageError: the package of a service is not installed.
    """
    check_installed(names)
    with ExitStack() as sessions:
        yield [sessions.enter_context(_session(name, run, settings)) for name in dict.fromkeys(names)]


@contextmanager
def _session(name: str, run: Run, settings: Settings) -> Iterator[Tracker]:
    tracker = TRACKERS[name](run, settings)
    failed = True
    try:
        yield tracker
        failed = False
    finally:
        tracker.close(failed=failed)


@contextmanager
def _opening(name: str, kind: type[Exception], remedy: str) -> Iterator[None]:
    """Report an error of the service's own package, of this kind, in one line."""
    try:
        yield
    except kind as error:
        first = str(error).strip().partition("\n")[0]
        raise RunError(f"--log {name}: the service cannot be used: {first}", remedy=remedy) from None


def _identifier(run: Run, service: str) -> str | None:
    found = (known_document(run.path / KNOWN) or {}).get(service)
    return found if isinstance(found, str) else None


def _remember(run: Run, service: str, identifier: str) -> None:
    known = known_document(run.path / KNOWN) or {}
    run.write(KNOWN, {name: value for name, value in known.items() if name in TRACKERS} | {service: identifier})
