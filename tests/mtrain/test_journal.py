"""What is logged and said of a training while it runs."""

from __future__ import annotations

import mmap
import multiprocessing
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from mtrain import provenance, services
from mtrain.cli import group
from mtrain.config import FitConfig
from mtrain.disk.documents import read_document
from mtrain.errors import RunError, UsageError
from mtrain.runs.run_folder import Run
from mtrain.train.fit import fit
from mtrain.train.reporting.journal import Journal, glance
from mtrain.train.reporting.memory import memory
from mtrain.train.reporting.tracking import tracking
from tests.mtrain.pools import write_pool
from tests.mtrain.test_fit import Notes, config

EVENT: dict[str, Any] = {
    "loss": 0.5314,
    "tasks": {"Two": 0.60, "Ten": 0.9},
    "lr": {"shared": 1e-4, "heads": 5e-4},
    "wait": 0.0,
}


@pytest.fixture(autouse=True)
def memory_is_not_measured() -> None:
    """It is here."""


def test_the_task_with_the_highest_loss_is_called_that_and_is_the_one_nearest_to_guessing() -> None:
    """0.60 of ln 2 = 0.69 is more than 0.9 of ln 10 = 2.3."""
    said = glance(EVENT, {"Two": 2, "Ten": 10})
    assert said == "loss 0.531, highest relative loss Two 0.600 (87% of guessing), lr shared 0.0001 heads 0.0005"


def test_much_waiting_is_said_when_it_begins_and_again_after_a_time_without(tmp_path: Path) -> None:
    notes = Notes()
    journal = Journal(Run(tmp_path / "toy"), notes, board=None)
    training = SimpleNamespace(iteration=50, config=SimpleNamespace(workers=2, features="online"))
    for share in (0.1, 0.3, 0.5, 0.1, 0.25):
        journal._note_waiting(share, training)  # type: ignore[arg-type]
    assert [note.partition(";")[0] for note in notes.said] == [
        f"toy: at iteration 50, {share}% of the time is spent waiting for data" for share in (30, 25)
    ]
    assert "more --workers (now 2)" in notes.said[0]


def test_waiting_for_the_first_batch_is_no_advice(tmp_path: Path) -> None:
    notes = Notes()
    journal = Journal(Run(tmp_path / "toy"), notes, board=None)
    training = SimpleNamespace(iteration=1, config=SimpleNamespace(workers=2, features="online"))
    journal._note_waiting(0.9, training)  # type: ignore[arg-type]
    assert not notes.said
    training.iteration = 10
    journal._note_waiting(0.9, training)  # type: ignore[arg-type]
    assert len(notes.said) == 1


def test_a_journal_that_is_not_kept_writes_nothing(tmp_path: Path) -> None:
    journal = Journal(Run(tmp_path / "toy"), Notes(), board=None)
    journal.state("running", 1)
    journal.log(EVENT)
    journal.validation({"Two": 1.0}, 1)
    assert not (tmp_path / "toy").exists()


def test_the_log_tells_rates_speed_waiting_and_memory(tmp_path: Path) -> None:
    run = Run(tmp_path / "toy")
    shards = write_pool(tmp_path / "shards", ("Alpha", "Gamma"), sizes={"train": 8})
    fit(config(shards, iterations=4, warmup=2, log_every=2, adapt_batches=0), run, Notes())
    first, last = run.events()
    assert (first["lr"], last["lr"]) == ({"heads": 1e-3}, {"shared": 1e-2, "heads": 5e-2})
    assert (first["warmup"], last["warmup"]) == (True, False)
    assert 50 < last["memory"]["host"] < 50_000
    assert last["images_per_s"] > 0
    assert 0 < last["wait"] < 1


def test_tensorboard_has_the_settings_and_a_curve_for_each_task_and_number(tmp_path: Path) -> None:
    run = Run(tmp_path / "toy")
    shards = write_pool(tmp_path / "shards", ("Alpha", "Gamma"), sizes={"train": 8})
    asked = config(shards, iterations=4, warmup=2, log_every=2, adapt_batches=0)
    fit(asked, run, Notes())
    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"loss", "tasks/Alpha", "lr/shared", "lr/heads", "images_per_s", "memory/host"} <= scalars
    assert [event.step for event in events.Scalars("loss")] == [2, 4]
    (told,) = [one for name, one in events.summary_metadata.items() if name == "_hparams_/session_start_info"]
    settings = HParamsPluginData.FromString(told.plugin_data.content).session_start_info.hparams
    assert settings["lr"].number_value == asked.lr
    assert settings["backbone"].string_value == asked.backbone


# --- services ---


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, FitConfig]:
    """A training of four iterations; the environment of the services is that of a machine without a network."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.chdir(tmp_path)
    shards = write_pool(tmp_path / "shards", ("Alpha", "Gamma"), sizes={"train": 8})
    return Run(tmp_path / "toy"), config(shards, iterations=4, warmup=2, log_every=2, adapt_batches=0)


@pytest.mark.filterwarnings("ignore")  # of the services' own
def test_the_log_goes_to_wandb_offline(small: tuple[Run, FitConfig]) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    run, asked = small
    assert fit(asked, run, Notes(), trackers=["wandb"]) == "finished"
    wandb.teardown()  # as at the end of a program: its service writes what it holds
    identifier = run_document(run)["wandb"]
    (file,) = (run.path / "wandb").glob(f"offline-run-*/run-{identifier}.wandb")
    content = file.read_bytes()
    for name in ("tasks/Alpha", "images_per_s", "iteration", asked.backbone):
        assert name.encode() in content


@pytest.mark.filterwarnings("ignore")  # of the services' own
def test_the_log_goes_to_mlflow_and_a_resumed_run_goes_on_there(small: tuple[Run, FitConfig], tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    run, asked = small
    fit(asked, run, Notes(), trackers=["mlflow"])
    identifier = run_document(run)["mlflow"]
    found = mlflow.MlflowClient().get_run(identifier)
    assert (found.info.run_name, found.info.status) == ("toy", "FINISHED")
    assert found.data.params["backbone"] == asked.backbone
    losses = mlflow.MlflowClient().get_metric_history(identifier, "loss")
    assert [(one.step, one.value) for one in losses] == [(event["iteration"], event["loss"]) for event in run.events()]
    with tracking(["mlflow"], run, {}) as (again,):
        again.log({"loss": 0.5}, 6)
    assert [one.step for one in mlflow.MlflowClient().get_metric_history(identifier, "loss")] == [2, 4, 6]


def test_a_service_that_is_not_installed_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services.importlib.util, "find_spec", lambda _name: None)
    answer = CliRunner().invoke(group, ["fit", "--log", "wandb"])
    assert isinstance(answer.exception, UsageError)
    assert answer.exception.remedy == "pip install 'dpconvert[wandb]'"


def run_document(run: Run) -> dict[str, Any]:
    return read_document(run.path / "tracking.json", "")


def test_memory_of_the_host_grows_with_what_is_held() -> None:
    before = memory(torch.device("cpu"))["host"]
    # new pages: an allocator might hand out ones that the process still holds; many: others may be reclaimed meanwhile
    with mmap.mmap(-1, 256 * 2**20) as held:
        for page in range(0, len(held), mmap.PAGESIZE):
            held[page] = 1
        assert 200 < memory(torch.device("cpu"))["host"] - before < 300


def test_a_process_that_ended_meanwhile_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = SimpleNamespace(pid=2**31 - 1)
    with monkeypatch.context() as patch:
        patch.setattr(multiprocessing, "active_children", lambda: [ended])
        test_memory_of_the_host_grows_with_what_is_held()


# --- the state of the code ---


def git(*words: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True)


def test_commit_and_changes_of_the_working_directory_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.git_state() is None
    (tmp_path / "a").write_text("1")
    for words in (["init"], ["add", "a"], ["commit", "-m", "one"]):
        git(*words)
    state = provenance.git_state()
    assert state is not None
    assert len(state["commit"]) == 40
    assert state["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert provenance.git_state() == state | {"dirty": True}
    git("config", "core.fsmonitor", f"touch {tmp_path / 'ran'}; false")  # as a folder of somebody's data may have it
    assert provenance.git_state() == state | {"dirty": True}
    assert not (tmp_path / "ran").exists()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git_state() is None


ROUNDED = "its sums are rounded differently from now on"


@pytest.mark.parametrize(
    ("there", "here", "said"),
    [
        ((1, 1), (1, 1), None),
        ((2, 1), (1, 2), f"2 processes x 1 parts, now 1 process x 2: {ROUNDED}"),
        (
            (1, 1),
            (4, 2),
            f"1 process x 1 parts, now 4 processes x 2: {ROUNDED}, and batch normalization sees 1/8 of a batch at "
            "a time instead of 1/1, unless --sync-batchnorm is given",
        ),
    ],
)
def test_another_division_of_the_batches_is_said(
    tmp_path: Path, there: tuple[int, int], here: tuple[int, int], said: str | None
) -> None:
    run = Run(tmp_path / "toy")
    contents = [{"ranks": ranks, "config": {"accumulate": parts}} for ranks, parts in (there, here)]
    run.write("config.json", contents[0])
    found = provenance.other_division(run, contents[1])
    assert found == (said and f"toy: batches were divided into {said}")


def test_a_run_from_before_a_choice_goes_on_without_it(tmp_path: Path) -> None:
    run, shards = Run(tmp_path / "toy"), write_pool(tmp_path / "shards", ("Alpha", "Gamma"), sizes={"train": 8})
    asked = config(shards, iterations=1, warmup=0, adapt_batches=0)
    fit(asked, run, Notes())
    about = run.about()
    for choice in ("compile", "sync_batchnorm", "accumulate"):
        del about["config"][choice]
    run.write("config.json", about)
    assert fit(asked, run, Notes()) == "finished"
    with pytest.raises(RunError, match=r"compile \(False in the run, True requested\)"):
        fit(asked.model_copy(update={"compile": True}), run, Notes())


@pytest.mark.filterwarnings("ignore")  # of the services' own
def test_a_store_that_mlflow_cannot_open_is_one_line(
    small: tuple[Run, FitConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "false")
    run, _ = small
    with (
        pytest.raises(RunError, match=r"--log mlflow: the service cannot be used: .*MLFLOW_ALLOW_FILE_STORE=true"),
        tracking(["mlflow"], run, {}),
    ):
        pass
