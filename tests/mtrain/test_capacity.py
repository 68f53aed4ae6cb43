"""How many cells run at once on a GPU: the decision from measured rates, its record, and the processes that measure."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dpconvert.runtime import locks
from dpconvert.runtime.progress import Reporter
from mtrain.config import FitConfig
from mtrain.sweep import at_once
from mtrain.sweep.cells import Cell, cells_of
from mtrain.sweep.concurrency import cards, probe_process, probing
from mtrain.sweep.concurrency.capacity import (
    Capacity,
    JobLevel,
    JobLimits,
    Room,
    Step,
    best_of,
    kind,
    next_step,
    record,
    recorded,
)
from mtrain.sweep.concurrency.cards import Card, Cards, cards_for
from mtrain.sweep.engines import local_engine
from mtrain.sweep.left_out import left_out_sets
from mtrain.sweep.spec import load_sweep
from mtrain.sweep.store import Store
from tests.mtrain.pools import write_pool
from tests.mtrain.test_sweep import TINY

QUIET = Reporter(quiet=True)
ENOUGH = JobLimits(cells=100, images=1e9, processors=64, loaders=2)
GIB = 2**30
MACHINE = {"gpus": ["A card 80000 MiB"], "processors": 16, "torch": "2"}


class Notes(Reporter):
    """Keeps what is noted."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def levels(*rates: float) -> tuple[JobLevel, ...]:
    """Levels of 1, 2, 4, ... cells at once with these rates."""
    return tuple(JobLevel(at_once=2**number, images_per_s=rate) for number, rate in enumerate(rates))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("pool"), sizes={"train": 16, "val": 8, "test": 4})


@pytest.fixture
def cells(tmp_path: Path, shards: Path) -> list[Cell]:
    """Eight tiny cells of one kind."""
    (tmp_path / "tiny.toml").write_text(TINY)
    sweep = load_sweep(str(tmp_path / "tiny.toml")).model_copy(update={"shards": str(shards)})
    return cells_of(sweep, left_out_sets(sweep))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "sweep")


# --- the decision ---


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ((1200,), 1),
        ((1200, 2100, 2250), 2),  # 2 250 is 7% more than 2 100
        ((1000, 1100), 2),  # exactly a tenth more
        ((1000, 1099), 1),
        ((1000, 900), 1),
        ((1000, 1500, 2000, 2600), 8),
        ((1000, 1050, 9000), 1),  # what follows a level that did not grow does not count
    ],
)
def test_the_number_is_doubled_while_the_rate_grows_by_a_tenth(rates: Sequence[float], chosen: int) -> None:
    assert best_of(levels(*rates)).at_once == chosen
    assert Capacity(levels=levels(*rates)).at_once == chosen


def test_one_level_follows_the_other_until_the_rate_no_longer_grows() -> None:
    assert next_step([], [], ENOUGH, 0, 0) == Step(1)
    assert next_step(levels(1200), [], ENOUGH, 10, 5) == Step(2)
    assert next_step(levels(1200, 2100), [], ENOUGH, 15, 5) == Step(4)
    assert next_step(levels(1200, 2100, 2250), [], ENOUGH, 20, 5) == Step(None)


def test_processors_cells_and_the_work_left_bound_the_number() -> None:
    # 16 processors carry 5 cells of 3 processes: 4 are tried, 8 are not
    sixteen = replace(ENOUGH, processors=16)
    assert next_step(levels(1, 2), [], sixteen, 0, 0) == Step(4)
    assert next_step(levels(1, 2, 4), [], sixteen, 0, 0) == Step(None, "16 processors for 3 processes a cell")
    assert JobLimits(9, 1e9, processors=2, loaders=2).by_processors == 1
    three = replace(ENOUGH, cells=3)
    assert next_step(levels(1, 2), [], three, 0, 0) == Step(None, "3 cells left", settled=False)
    # a million images at 1 000 a second take 1 000 s, of which 5% are 50 s
    short = replace(ENOUGH, images=1e6)
    assert next_step(levels(1000), [], short, 30, 20) == Step(2)
    assert next_step(levels(1000), [], short, 31, 20).at_once is None
    assert not next_step(levels(1000), [], short, 31, 20).settled


def test_a_tenth_of_the_memory_stays_free() -> None:
    # after 2 cells of 10 GiB, 60 of 80 GiB are free: 2 more leave 40. After 4, 40 are free: 4 more would leave none
    assert next_step(levels(1, 2), [Room("GPU", 80 * GIB, 60 * GIB, 10 * GIB)], ENOUGH, 0, 0) == Step(4)
    full = Room("GPU", 80 * GIB, 40 * GIB, 10 * GIB)
    assert next_step(levels(1, 2, 4), [full], ENOUGH, 0, 0) == Step(None, "no room for 8 in the memory of the GPU")
    assert Room("GPU", 80, 28, 10).fits(2)  # 8 of 80 remain
    assert not Room("GPU", 80, 27, 10).fits(2)


def test_what_was_found_is_reported_in_one_line() -> None:
    found = Capacity(levels=levels(1200, 2100, 2250))
    assert str(found) == "1 at once: 1 200 images/s, 2: 2 100, 4: 2 250"
    assert found.speed_up(2) == 1.75
    slow = Capacity(levels=levels(1.26), reason="2 at once: a process ended by signal 9")
    assert str(slow) == "1 at once: 1.3 images/s; 2 at once: a process ended by signal 9"
    assert str(Capacity(levels=(), reason="1 at once: out of memory")) == "not measured; 1 at once: out of memory"


# --- the record ---


def test_a_record_holds_for_the_same_settings_machine_and_no_more_work(store: Store, cells: list[Cell]) -> None:
    settings = kind(cells[0].config)
    assert all(kind(cell.config) == settings for cell in cells)  # of any rate, warm-up and left-out set
    assert recorded(store.path, settings, MACHINE, ENOUGH) is None
    found = Capacity(levels=levels(10, 15), reason="3 cells left", settled=False, cells=3, images=1e6)
    record(store.path, settings, MACHINE, found)
    less = JobLimits(2, 1e6, 16, 2)
    assert recorded(store.path, settings, MACHINE, less) == found
    assert recorded(store.path, settings, MACHINE, replace(less, cells=4)) is None
    assert recorded(store.path, settings, MACHINE, replace(less, images=1.1e6)) is None
    assert recorded(store.path, settings, MACHINE | {"processors": 8}, less) is None
    assert recorded(store.path, kind(cells[0].config.model_copy(update={"batch": 9})), MACHINE, less) is None
    record(store.path, settings, MACHINE, found.model_copy(update={"settled": True}))
    assert recorded(store.path, settings, MACHINE, ENOUGH) is not None
    (path,) = (store.path / "capacity").iterdir()
    path.write_text(path.read_text().replace("15", "16"))
    assert recorded(store.path, settings, MACHINE, less) is None


# --- the choice ---


ONE = Cards((Card("0", "GPU-0", "A card", 80_000, 0),))


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> list[FitConfig]:
    """Replace the processes of a measurement: records what was measured, and finds that 2 cells at once pay."""
    asked: list[FitConfig] = []

    def measure(config: FitConfig, *_rest: Any) -> Capacity:
        asked.append(config)
        return Capacity(levels=levels(1200, 2100, 2250))

    monkeypatch.setattr(probing, "measure", measure)
    monkeypatch.setattr(at_once, "processors", lambda: 16)
    monkeypatch.setattr(at_once, "FASTEST", 1e-3)
    return asked


def test_what_is_measured_is_said_kept_and_reused(store: Store, cells: list[Cell], measuring: list[FitConfig]) -> None:
    notes = Notes()
    assert at_once.jobs(store, cells, ONE, [], notes) == 2
    assert at_once.jobs(store, cells[1:], ONE, [], notes) == 2
    assert len(measuring) == 1
    line = "1 at once: 1 200 images/s, 2: 2 100, 4: 2 250: 2 cells at once on each GPU"
    assert notes.lines == [line, f"{line} (measured before)"]
    lines, content = at_once.outlook(store, cells, ONE, 35.0)  # hours, at 2 100 instead of 1 200 images per second
    assert lines == [f"on this machine: 20.0 h with 2 cells at once on each of 1 GPU ({line} (measured before))"]
    assert content == {"jobs": 2, "hours_here": 20.0}


def test_the_number_is_that_of_each_gpu(store: Store, cells: list[Cell], measuring: list[FitConfig]) -> None:
    two = Cards((*ONE.cards, Card("1")))
    assert at_once.jobs(store, cells, two, [], QUIET) == 4
    assert len(measuring) == 1


def test_the_smallest_number_counts_among_several_networks(
    store: Store, cells: list[Cell], monkeypatch: pytest.MonkeyPatch, measuring: list[FitConfig]
) -> None:
    large = replace(cells[0], config=cells[0].config.model_copy(update={"backbone": "resnet18"}))
    rates = {"resnet18": levels(100, 105), "shufflenet_v2_x0_5": levels(1200, 2100, 2250)}
    monkeypatch.setattr(probing, "measure", lambda config, *_rest: Capacity(levels=rates[config.backbone]))
    notes = Notes()
    assert at_once.jobs(store, [*cells, large], ONE, [], notes) == 1
    assert notes.lines == [
        "shufflenet_v2_x0_5, 1 at once: 1 200 images/s, 2: 2 100, 4: 2 250; resnet18, 1 at once: 100 images/s, 2: 105: "
        "1 cell at once on each GPU"
    ]


def test_without_enough_work_nothing_is_measured_and_the_choice_is_said(
    store: Store, cells: list[Cell], monkeypatch: pytest.MonkeyPatch, measuring: list[FitConfig]
) -> None:
    notes = Notes()
    monkeypatch.setattr(at_once, "FASTEST", 3000)
    assert at_once.jobs(store, cells, ONE, [], notes) == 1
    assert at_once.jobs(store, cells[:1], ONE, [], notes) == 1  # a single cell: there is nothing to choose
    assert at_once.jobs(store, cells, ONE, ["GPU 0 is used by another sweep (process 7)"], notes) == 1
    monkeypatch.setattr(at_once, "FASTEST", 1e-3)
    monkeypatch.setattr(at_once, "processors", lambda: 1)
    assert at_once.jobs(store, cells, ONE, [], notes) == 1
    alone, otherwise = "1 cell at once on each GPU", "--jobs sets another number"
    assert notes.lines == [
        f"{alone}: the work left is too short to measure more in 5% of it; {otherwise}",
        f"GPU 0 is used by another sweep (process 7): {alone}; {otherwise}",
        f"{alone}: 1 processor for 1 process a cell; {otherwise}",
    ]
    assert at_once.jobs(store, cells, Cards(), [], notes) == 1
    assert len(notes.lines) == 3  # on the CPU there is nothing to say
    assert not measuring


def test_beside_other_programs_it_is_measured_but_not_kept(
    store: Store, cells: list[Cell], measuring: list[FitConfig]
) -> None:
    notes = Notes()
    busy = Cards((Card("0", "GPU-0", "A card", 80 * 1024, 12 * 1024),))
    assert at_once.jobs(store, cells, busy, [], notes) == 2
    assert notes.lines[0].startswith("other programs use GPU 0 (12.0 GiB of memory, 0% of the time): measuring beside")
    assert at_once.known(store, cells, busy) is None


def test_a_stopped_measurement_stops_the_sweep_and_leaves_no_record(
    store: Store, cells: list[Cell], monkeypatch: pytest.MonkeyPatch, measuring: list[FitConfig]
) -> None:
    monkeypatch.setattr(probing, "measure", lambda *_given: None)
    assert at_once.jobs(store, cells, ONE, [], QUIET) is None
    assert at_once.known(store, cells, ONE) is None


# --- the GPUs ---


def test_gpus_are_those_of_the_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    told = "0, GPU-aa, A card, 81559, 4, 0\n1, GPU-bb, A card, 81559, 4, 50\n2, GPU-cc, A card, 81559, 9000, 0\n"
    monkeypatch.setattr(cards.shutil, "which", lambda _name: "/bin/nvidia-smi")
    answer = subprocess.CompletedProcess([], 0, told, "")
    monkeypatch.setattr(cards.subprocess, "run", lambda *_given, **_options: answer)
    assert [card.is_busy for card in cards_for(["auto"], ["0", "1", "2"]).cards] == [False, True, True]
    both = cards_for(["auto"], ["0", "GPU-bb"])
    assert [(card.name, card.uuid, card.is_busy) for card in both.cards] == [
        ("0", "GPU-aa", False),
        ("GPU-bb", "GPU-bb", True),
    ]
    assert [both.variables(number) for number in (0, 1, 2)] == [
        {"CUDA_VISIBLE_DEVICES": name} for name in ("0", "GPU-bb", "0")
    ]
    assert both.machine()["gpus"] == ["A card 81559 MiB"] * 2
    second = cards_for(["cuda:1"], ["0", "1"])
    assert [card.uuid for card in second.cards] == ["GPU-bb"]
    assert second.variables(0) == {}  # cuda:1 exists only for a process that sees both
    assert cards_for(["cpu"], ["0"]) == cards_for(["auto"], []) == Cards()


def test_two_sweeps_on_one_gpu_know_of_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards.tempfile, "gettempdir", lambda: str(tmp_path))
    with cards.in_use(ONE) as first, cards.in_use(ONE) as second:
        assert first == []
        assert len(second) == 1
        assert second[0].startswith(f"GPU 0 is used by another sweep (process {os.getpid()} on ")
    with cards.in_use(ONE) as again, cards.in_use(Cards((Card("0"),))) as unknown:
        assert again == unknown == []
    assert not locks.is_held(next(iter(tmp_path.glob("mtrain-sweep-*"))))


# --- the processes, on the CPU ---


@pytest.mark.stress
def test_a_killed_process_means_not_that_many(store: Store, cells: list[Cell], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "WARM", 0.0)
    monkeypatch.setattr(probing, "SECONDS", 0.05)
    started = _started(monkeypatch, killed=2)
    found = probing.measure(cells[0].config, store.path / "none", ENOUGH, {}, QUIET)
    assert found is not None
    assert [level.at_once for level in found.levels] == [1]
    assert found.levels[0].images_per_s > 0
    assert found.reason == "2 at once: a process ended by signal 9, often for lack of memory"
    assert found.at_once == 1
    assert len(started) == 2
    assert not store.path.exists()


def _started(monkeypatch: pytest.MonkeyPatch, killed: int = 0) -> list[Any]:
    """Record the processes that are started; the one with the number `killed` is killed at once."""
    started: list[Any] = []
    plain = probing._Crew._start

    def start(crew: Any) -> Any:
        pair = plain(crew)
        started.append(pair[0])
        if len(started) == killed:
            pair[0].kill()
        return pair

    monkeypatch.setattr(probing._Crew, "_start", start)
    return started


def test_a_training_that_cannot_begin_is_reported_as_an_error(
    store: Store, cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_process.signal, "signal", lambda *_given: None)  # here, in the process of the tests
    ours, theirs = multiprocessing.Pipe()
    lost = cells[0].config.model_copy(update={"shards": "/nowhere"})
    probe_process.probe(lost, store.path / "none", theirs)
    with pytest.raises(probing.LostError, match=r"^/nowhere: no such folder of shards"):
        probing._received(ours, multiprocessing.Process())  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_measurement_and_its_processes(
    store: Store, cells: list[Cell], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(probing, "GRACE", 0.0)
    started = _started(monkeypatch)
    answers: Callable[..., Any] = probing._Crew._answers

    def signalled(*given: Any) -> Any:
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
        return answers(*given)

    monkeypatch.setattr(probing._Crew, "_answers", signalled)
    assert probing.measure(cells[0].config, store.path / "none", ENOUGH, {}, QUIET) is None
    assert [process.exitcode for process in started] == [-signal.SIGTERM]


def test_processes_start_with_their_variables_and_without_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C at a terminal reaches a process that still loads its modules: the parent alone is to answer."""
    monkeypatch.setenv("FORMER", "1")
    monkeypatch.delenv("NEW", raising=False)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with cards.environment({"FORMER": "2", "NEW": "3"}):
        code = (
            "import os, signal as s; e = os.environ; print(e['FORMER'], e['NEW'], *map(int, s.pthread_sigmask(0, ())))"
        )
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.split() == ["2", "3", "2"]
    assert os.environ["FORMER"] == "1"
    assert "NEW" not in os.environ
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_jobs_share_the_processors_and_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_engine, "processors", lambda: 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    two = Cards((Card("2"), Card("5")))
    assert local_engine.share_of_machine(3, 4, two) == {"CUDA_VISIBLE_DEVICES": "5", "OMP_NUM_THREADS": "4"}
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert local_engine.share_of_machine(0, 4, Cards()) == {}
