"""Conversions and sweeps on a Ray cluster: real ones of local processes, nodes of which are killed.

Warnings of Ray's own are let through: sockets and log files that it leaves to the garbage collector, and processes
that it forks while threads run.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dpconvert.cli import group as dpconvert
from dpconvert.errors import ReadError, UsageError
from dpconvert.manifest import catalog
from dpconvert.readers import fakes
from dpconvert.runtime import processes, ray_cluster
from dpconvert.runtime.progress import Reporter
from dpconvert.runtime.ray_cluster import Cluster
from mtrain.cli import group as mtrain
from mtrain.sweep.cells import Cell, cells_of
from mtrain.sweep.engines import ray_engine as sweep_cluster
from mtrain.sweep.engines.ray_engine import Resources
from mtrain.sweep.left_out import left_out_sets
from mtrain.sweep.spec import load_sweep
from mtrain.sweep.store import Store
from tests.documents import PROGRAMS, ROOT, lines, programs_in
from tests.dpconvert import workers
from tests.mtrain.pools import write_pool
from tests.mtrain.test_sweep import TINY, wait_for
from tests.ray_cluster import local_cluster
from tests.small_networks import whole_networks

pytest.importorskip("ray", reason="needs Ray: pip install 'dpconvert[cluster]'")
pytestmark = [
    pytest.mark.usefixtures("slow_png"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*ray:FutureWarning"),
]
QUIET = Reporter(quiet=True)
RACE = "\n[race]\nlengths = [0.5, 1.0]\nkeep = 0.5\nleast = 1\n"


@pytest.fixture(scope="module", autouse=True)
def networks_are_those_of_other_interpreters() -> Iterator[None]:
    with whole_networks():
        yield


@pytest.fixture(scope="module")
def small() -> Iterator[Cluster]:
    """One node, for what kills none."""
    with local_cluster() as running:
        yield Cluster(running.address)


# --- the short form ---


def test_results_come_home_and_mistakes_as_what_they_are(small: Cluster) -> None:
    assert sorted(processes.run(workers.add, 10, [0, 1, 2, 4, 5], small)) == [10, 11, 12, 14, 15]
    with pytest.raises(ReadError, match="a: broken; found 3; mend it"):
        list(processes.run(workers.add, 10, [1, 3, 5], small))


def test_a_conversion_gives_the_bytes_that_it_gives_elsewhere(small: Cluster, tmp_path: Path) -> None:
    source = fake(tmp_path)
    command = ["umcm-colorectal", "--source", str(source), "--quiet", "--out"]
    assert CliRunner().invoke(dpconvert, [*command, str(tmp_path / "here"), "--workers", "1"]).exit_code == 0
    answer = CliRunner().invoke(
        dpconvert, [*command, str(tmp_path / "there"), "--engine", "ray", "--address", str(small.address)]
    )
    assert answer.exit_code == 0, answer.output
    assert files(tmp_path / "here") == files(tmp_path / "there")


def test_a_relative_folder_of_own_sources_reaches_the_nodes(
    small: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for given, told in (("own:./more", f"{tmp_path}/own:{tmp_path}/more"), ("", "")):
        monkeypatch.setenv("DPCONVERT_PATH", given)
        assert set(processes.run(workers.own_sources, 0, range(3), small)) == {told}


@pytest.mark.stress
def test_a_sweep_gives_the_scores_that_it_gives_elsewhere(
    small: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pool(tmp_path / "shards", sizes={"train": 16, "val": 8, "test": 4})
    (tmp_path / "tiny.toml").write_text(TINY.replace('"Alpha", "Gamma"', '"Gamma"').replace("[1e-2, 1e-3]", "[1e-2]"))
    command = ["sweep", str(tmp_path / "tiny.toml"), "--shards", str(tmp_path / "shards"), "--sweeps"]
    ray = ["--engine", "ray", "--address", str(small.address)]
    answer = CliRunner().invoke(mtrain, [*command, str(tmp_path / "there"), *ray, "--quiet"], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    assert "tiny: 2 of 2 cells" in answer.output
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as Ray sets it where a task has one processor
    assert CliRunner().invoke(mtrain, [*command, str(tmp_path / "here"), "--quiet"]).exit_code == 0
    assert scores(tmp_path / "here" / "tiny") == scores(tmp_path / "there" / "tiny")
    refused = CliRunner().invoke(mtrain, [*command, str(tmp_path / "other"), *ray, "--cpus", "64"])
    assert str(refused.exception).startswith("no node of the cluster has the resources that a cell requires")


@pytest.mark.stress
def test_a_race_drops_and_chooses_as_it_does_elsewhere(
    small: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells of the second rung are due only when those of half the iterations have decided."""
    write_pool(tmp_path / "shards", sizes={"train": 12, "val": 8, "test": 4})
    text = TINY.replace("[1e-2, 1e-3]", "[1e-1, 1e-6]").replace("[true, false]", "[false]")
    (tmp_path / "tiny.toml").write_text(text + RACE)
    command = ["sweep", str(tmp_path / "tiny.toml"), "--race", "--shards", str(tmp_path / "shards"), "--sweeps"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as Ray sets it where a task has one processor
    for place, engine in (("there", ["--engine", "ray", "--address", str(small.address)]), ("here", [])):
        answer = CliRunner().invoke(
            mtrain, [*command, str(tmp_path / place), *engine, "--quiet"], catch_exceptions=False
        )
        assert answer.exit_code == 0, answer.output
        assert "race finished" in answer.output
    there, here = (tmp_path / place / "tiny" for place in ("there", "here"))
    assert scores(here) == scores(there)
    assert (here / "race.json").read_text() == (there / "race.json").read_text()
    contests = json.loads((there / "race.json").read_text())["contests"]
    stay = {combination["lr"] for contest in contests for combination in contest["rungs"][0]["stay"]}
    assert len(scores(there)) == 2 * 2 + 2 * len(stay)  # rates x sets of half the length, and those that stay


@pytest.mark.stress
def test_the_commands_of_the_page_work(small: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with the source, the shards and a small sweep of the name that the page gives."""
    asked = [line for line in lines(ROOT / "docs" / "how-to" / "many-gpus.md") if "--engine ray" in line.text]
    fakes.draw_fake(catalog.find("camelyon16"), tmp_path / "sources")
    write_pool(tmp_path / "shards", ("Alpha", "Gamma"), sizes={"train": 16, "val": 8, "test": 4})
    (tmp_path / "paper").write_text(
        TINY.replace('"Alpha", "Gamma"', '"Gamma"')
        .replace("[1e-2, 1e-3]", "[1e-2]")
        .replace("[true, false]", "[false]")
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", str(small.address))
    assert [line.words[0] for line in asked] == ["mtrain", "dpconvert"]
    for line in asked:
        (started,) = programs_in(line)
        answer = CliRunner().invoke(PROGRAMS[started[0]], started[1], catch_exceptions=False)
        assert answer.exit_code == 0, answer.output
    assert (tmp_path / "shards" / "Camelyon16" / "task.json").is_file()


# --- one line for each mistake ---


def test_without_ray_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UsageError, match=r"Ray is not installed; pip install 'dpconvert\[cluster\]'"):
        list(processes.run(workers.add, 1, [1], Cluster()))


def test_another_version_on_a_node_is_refused() -> None:
    with pytest.raises(UsageError, match=r"a different version of the program on this node; expected 0\.0\.0; found"):
        ray_cluster.check_version("0.0.0")


@pytest.mark.parametrize(
    ("engine_name", "count", "address", "message"),
    [
        ("ray", 2, None, "--workers applies to --engine local"),
        ("local", None, "a:1", "--address applies to --engine ray"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    engine_name: str, count: int | None, address: str | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        processes.workers_of(engine_name, count, address)
    assert processes.workers_of("ray", None, "a:1") == Cluster("a:1")
    assert processes.workers_of("local", 3, None) == 3


class Nodes:
    """In place of Ray: a cluster's nodes."""

    def __init__(self, *resources: dict[str, float]) -> None:
        self.resources = resources

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": each} for each in self.resources]


def test_a_task_asks_for_a_gpu_where_there_are_gpus() -> None:
    cards, none = Nodes({"CPU": 4}, {"CPU": 8, "GPU": 2}), Nodes({"CPU": 4})
    assert sweep_cluster._wanted(cards, Resources(cpus=5), on_cpu=False) == {"num_cpus": 5, "num_gpus": 1}
    assert sweep_cluster._wanted(cards, Resources(), on_cpu=True) == {"num_cpus": 1, "num_gpus": 0}
    assert sweep_cluster._wanted(none, Resources(cpus=4), on_cpu=False) == {"num_cpus": 4, "num_gpus": 0}
    with pytest.raises(UsageError, match="expected --cpus up to 4; found --cpus 5"):
        sweep_cluster._wanted(none, Resources(cpus=5), on_cpu=False)


def test_a_node_that_does_not_see_the_folder_says_so(tmp_path: Path) -> None:
    found = sweep_cluster._answered(Store(tmp_path / "nowhere"), ray_cluster.__version__, lambda: None)
    assert "not visible on the node" in str(found.error)  # type: ignore[union-attr]


# --- nodes that are killed ---


@pytest.mark.stress
def test_a_killed_node_costs_a_sweep_nothing_but_the_cell_in_hand(tmp_path: Path) -> None:
    store, cells = slow_sweep(tmp_path)
    killed: list[str] = []

    def disturb(running: Any) -> None:
        wait_for(lambda: len(checkpoints(store)) > 1)
        (node,) = running.worker_nodes
        killed.append(node.unique_id)
        running.remove_node(node, allow_graceful=False)

    with local_cluster(nodes=2) as running, disturbing(lambda: disturb(running)):
        assert sweep_cluster.run(store, cells, Cluster(running.address), Resources(), QUIET) == "finished"
    assert killed
    assert all(store.has(cell) for cell in cells)
    assert scores(store.path) == scores(alone(tmp_path, cells).path)


@pytest.mark.stress
def test_a_killed_node_costs_a_conversion_nothing(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    with local_cluster(nodes=2) as running:

        def disturb() -> None:
            wait_for(lambda: len({path.name.partition("-")[2] for path in begun.iterdir()}) > 1)  # a task on each node
            (node,) = running.worker_nodes
            running.remove_node(node, allow_graceful=False)

        begun.mkdir()
        with disturbing(disturb):
            found = list(processes.run(workers.slowly, begun, range(20), Cluster(running.address)))
    assert sorted(found) == list(range(20))
    assert len(list(begun.iterdir())) > 20  # some were begun again


@pytest.mark.stress
def test_a_task_whose_process_is_killed_each_time_is_given_up(small: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "TRIES", 1)
    with pytest.raises(ray_cluster.OutputError, match="a task failed 2 times"):
        list(processes.run(workers.die, "", [1], small))


@pytest.mark.stress
def test_ctrl_c_stops_the_cells_of_a_cluster_with_checkpoints(tmp_path: Path) -> None:
    store, cells = slow_sweep(tmp_path)

    def disturb() -> None:
        wait_for(lambda: checkpoints(store))
        os.kill(os.getpid(), signal.SIGINT)

    with local_cluster() as running, disturbing(disturb):
        assert sweep_cluster.run(store, cells, Cluster(running.address), Resources(), QUIET) == "stopped"
    assert checkpoints(store)
    assert not all(store.has(cell) for cell in cells)


def slow_sweep(folder: Path) -> tuple[Store, list[Cell]]:
    """Four cells, two with a warm-up, long enough to be killed in the midst of."""
    text = TINY.replace('"Alpha", "Gamma"', '"Gamma"').replace("iterations = 6", "iterations = 60")
    (folder / "slow.toml").write_text(text.replace("checkpoint_every = 2", "checkpoint_every = 5"))
    shards = write_pool(folder / "shards", sizes={"train": 16, "val": 8, "test": 4})
    sweep = load_sweep(str(folder / "slow.toml")).model_copy(update={"shards": str(shards)})
    cells, store = cells_of(sweep, left_out_sets(sweep)), Store(folder / "sweeps" / "slow")
    store.write_plan(sweep, cells)
    return store, cells


def alone(folder: Path, cells: list[Cell]) -> Store:
    """The same cells, run here."""
    from mtrain.sweep.engines import local_engine as local

    store = Store(folder / "alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        assert local.run(store, cells, 1, QUIET) == "finished"
    return store


def fake(folder: Path) -> Path:
    return fakes.draw_fake(catalog.load(catalog.known()["umcm-colorectal"]), folder / "source")


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def scores(path: Path) -> dict[str, Any]:
    return {file.name: json.loads(file.read_bytes())["scores"] for file in (path / "cells").glob("*.json")}


def checkpoints(store: Store) -> set[Path]:
    return {path.parent for path in store.path.glob("runs/*/checkpoints/*.safetensors")}


@contextmanager
def disturbing(do: Callable[[], None]) -> Iterator[None]:
    """Do something beside the block."""
    thread = threading.Thread(target=do)
    thread.start()
    try:
        yield
    finally:
        thread.join()
