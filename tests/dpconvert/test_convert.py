"""Conversions that are repeated, spread over processes, killed, refused or fed with damaged files."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from dpconvert import conversion
from dpconvert.errors import OutputError, ReadError, SourceError
from dpconvert.runtime import processes
from dpconvert.runtime.progress import Reporter
from dpconvert.shards import job as jobs
from dpconvert.tasks.verify import verify
from tests.dpconvert.conftest import SAMPLES_PER_SHARD, Answer, Converted, one_line, run
from tests.dpconvert.test_contract import digests
from tests.dpconvert.workers import add, die, process

Get = Callable[[str], Converted]
Call = Callable[..., Answer]
ROOT = Path(__file__).resolve().parents[2]
POINTS, TILES, SLIDES = "warwick-crc", "umcm-colorectal", "camelyon16"
pytestmark = pytest.mark.usefixtures("slow_png")


@pytest.fixture
def converted(converted_fake: Get, small_tiles: Converted) -> Get:
    """As for all tests, but the source of whole images has small ones."""
    return lambda name: small_tiles if name == TILES else converted_fake(name)


@pytest.fixture
def tiles(converted: Get, tmp_path: Path) -> Path:
    """A copy of a source of whole images, to damage: 240 tiles in 6 shards."""
    return Path(shutil.copytree(converted(TILES).source, tmp_path / "source"))


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """After `interrupted(n)` Ctrl-C is pressed when n more shards are whole."""
    write, made = jobs.write_shard, []

    def after(count: int) -> None:
        def stopping(*arguments: Any) -> Any:
            if len(made) == count:
                monkeypatch.setattr(jobs, "write_shard", write)
                raise KeyboardInterrupt
            made.append(1)
            return write(*arguments)

        monkeypatch.setattr(jobs, "write_shard", stopping)

    return after


# --- same sources, same bytes


@pytest.mark.parametrize(("name", "workers"), [(POINTS, 2), (POINTS, 4), (SLIDES, 2)])
def test_every_file_is_the_same_for_any_number_of_workers(
    name: str, workers: int, converted: Get, tmp_path: Path
) -> None:
    one = converted(name)
    run(one.manifest, one.source, tmp_path, workers=workers)
    assert digests(tmp_path / one.manifest.task) == digests(one.folder)


def test_the_order_in_which_a_disk_lists_files_does_not_matter(
    converted: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = os.walk

    def shuffled(*arguments: Any, **options: Any) -> Iterator[tuple[str, list[str], list[str]]]:
        for folder, folders, files in walk(*arguments, **options):
            random.Random(1).shuffle(folders)
            yield folder, folders, sorted(files, reverse=True)

    monkeypatch.setattr("os.walk", shuffled)
    one = converted(TILES)
    listed = list(conversion.Source.open(one.source, one.manifest).sizes)
    assert listed == sorted(listed)
    run(one.manifest, one.source, tmp_path)
    assert digests(tmp_path / one.manifest.task) == digests(one.folder)


def test_killed_at_several_moments_and_resumed_the_bytes_are_the_same(converted: Get, tmp_path: Path) -> None:
    one = converted(POINTS)
    folder = tmp_path / one.manifest.task
    for shards in (0, 2, 5):
        process = start(one, tmp_path, workers=2)
        wait_for(lambda n=shards: notes(folder) > n or (n == 0 and folder.exists()), process)
        kill(process)
        assert not (folder / "task.json").exists()
    assert notes(folder) >= 5
    run(one.manifest, one.source, tmp_path)
    assert digests(folder) == digests(one.folder)


@pytest.mark.stress
@pytest.mark.timeout(1800)
def test_killed_at_100_random_moments_and_resumed_the_bytes_are_the_same(converted: Get, tmp_path: Path) -> None:
    one, moments = converted(POINTS), random.Random(7)
    whole = digests(one.folder)
    killed = 0
    while killed < 100:
        process = start(one, tmp_path, workers=4)
        try:
            process.wait(timeout=moments.uniform(0.2, 6.0))
        except subprocess.TimeoutExpired:
            killed += 1
        kill(process)
        if (tmp_path / one.manifest.task / "task.json").exists():
            run(one.manifest, one.source, tmp_path)  # removes what a kill after the last step left
            assert digests(tmp_path / one.manifest.task) == whole
            shutil.rmtree(tmp_path / one.manifest.task)
    run(one.manifest, one.source, tmp_path)
    assert digests(tmp_path / one.manifest.task) == whole


def test_idle_workers_leave_when_their_parent_alone_is_killed() -> None:
    code = (
        "from dpconvert.runtime import processes\n"
        "from tests.dpconvert.workers import add, then_nothing\n"
        "for result in processes.run(add, 0, then_nothing(), 2): print(result, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, start_new_session=True, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() in {b"0\n", b"1\n", b"2\n", b"4\n"}
        wait_for(lambda: len(group_of(process)) >= 3, None, seconds=20)
        process.kill()
        process.wait()
        wait_for(lambda: not group_of(process), None, seconds=20)
    finally:
        kill(process)


def test_a_killed_worker_is_reported_in_one_line() -> None:
    with pytest.raises(OutputError, match=r"a worker process was killed; often for lack of memory: .* fewer --workers"):
        list(processes.run(die, "context", range(3), 2))


def test_a_pool_keeps_its_processes_from_one_piece_of_work_to_the_next() -> None:
    with processes.pool("context", 2) as pool:
        first, then = (set(processes.run(process, "context", range(8), pool)) for _ in range(2))
    assert (len(first), first) == (2, then)
    assert os.getpid() not in first


def test_results_of_work_that_was_given_up_are_not_those_of_the_next() -> None:
    with processes.pool(10, 2) as pool:
        with pytest.raises(ReadError):
            list(processes.run(add, pool.context, [3, 1, 2, 1, 2], pool))
        assert sorted(processes.run(add, pool.context, [4, 5], pool)) == [14, 15]


@pytest.mark.parametrize("server", [True, False], ids=["forked", "spawned"])
def test_results_and_errors_of_workers_come_home(server: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not server:
        monkeypatch.setattr(forkserver, "ensure_running", no_socket)
    assert processes.start_loading() == ("forkserver" if server else "spawn")
    assert sorted(processes.run(add, 10, [0, 1, 2, 4, 5], 2)) == [10, 11, 12, 14, 15]
    with pytest.raises(ReadError, match=r"a: broken; found 3; mend it"):
        list(processes.run(add, 10, [3, 4], 2))


def no_socket() -> None:
    raise OSError("AF_UNIX path too long")


# --- run again


def test_a_finished_task_is_recognised_and_not_redone(converted: Get, dpconvert: Call, tmp_path: Path) -> None:
    one = converted(TILES)
    folder = shutil.copytree(one.folder, tmp_path / one.manifest.task)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != ".lock"}
    answer = dpconvert(TILES, *where(one, tmp_path))
    assert answer.code == 0
    assert "240 samples in 7 shards (already complete)" in answer.out
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != ".lock"} == before


@pytest.mark.parametrize(
    ("moment", "number"),
    [("workers load", signal.SIGINT), ("shards are made", signal.SIGINT), ("shards are made", signal.SIGTERM)],
)
def test_a_signal_ends_the_program_and_its_workers_with_one_line(
    moment: str, number: int, converted: Get, tmp_path: Path
) -> None:
    one = converted(POINTS)
    folder = tmp_path / one.manifest.task
    process = start(one, tmp_path, workers=2)
    try:
        if moment == "workers load":
            wait_for(lambda: any(b"forkserver" in command(pid) for pid in group_of(process)), process)
            time.sleep(0.2)  # it has begun to import
        else:
            wait_for(lambda: notes(folder) > 0, process)
        os.killpg(process.pid, number)
        assert process.wait(timeout=60) == 130
        wait_for(lambda: not group_of(process), None, seconds=20)
    finally:
        kill(process)
    said = (tmp_path / "stderr.txt").read_text().strip()
    assert said == "dpconvert: stopped; run the same command again to resume: finished shards are kept"


def test_ctrl_c_keeps_what_is_made_and_the_next_run_says_how_much(
    converted: Get, dpconvert: Call, tmp_path: Path, interrupted: Callable[[int], None]
) -> None:
    one = converted(TILES)
    interrupted(2)
    first = dpconvert(TILES, *where(one, tmp_path))
    assert (first.code, first.out) == (130, "")
    assert first.err.strip() == "dpconvert: stopped; run the same command again to resume: finished shards are kept"
    again = dpconvert(TILES, *where(one, tmp_path))
    assert "UMCMColorectal: 2 of 7 shards already exist\n" in again.err
    assert "(5 shards written, 2 existing)" in again.out
    assert digests(tmp_path / one.manifest.task) == digests(one.folder)


def test_a_shard_cut_by_a_full_disk_is_made_again(
    converted: Get, tmp_path: Path, interrupted: Callable[[int], None]
) -> None:
    one = converted(TILES)
    interrupted(3)
    with pytest.raises(KeyboardInterrupt):
        run(one.manifest, one.source, tmp_path)
    made = min((tmp_path / one.manifest.task).glob("*.tar"))
    made.write_bytes(made.read_bytes()[:-1])
    run(one.manifest, one.source, tmp_path)
    assert digests(tmp_path / one.manifest.task) == digests(one.folder)


@pytest.mark.parametrize("finished", [True, False])
def test_other_options_in_the_same_folder_are_refused(
    finished: bool, converted: Get, dpconvert: Call, tmp_path: Path, interrupted: Callable[[int], None]
) -> None:
    one = converted(TILES)
    if not finished:
        interrupted(1)
    dpconvert(TILES, *where(one, tmp_path))
    answer = dpconvert(TILES, *where(one, tmp_path), "--limit", 2)
    assert answer.code == 1
    assert one_line(answer).startswith(
        f"dpconvert: error: {tmp_path / one.manifest.task}: holds a conversion with other options; expected "
    )
    assert answer.err.strip().endswith("; choose another --out, or replace it with --overwrite")


def test_files_that_a_killed_process_was_writing_are_removed_from_every_folder_of_the_task(
    converted: Get, tmp_path: Path, interrupted: Callable[[int], None]
) -> None:
    one = converted(TILES)
    folder = tmp_path / one.manifest.task
    interrupted(1)
    with pytest.raises(KeyboardInterrupt):
        run(one.manifest, one.source, tmp_path)
    left = [folder / "a.tar.1.part", folder / ".work" / "a.json.1.part", folder / ".nv-meta" / ".info.json.1.part"]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    run(one.manifest, one.source, tmp_path)
    assert digests(folder) == digests(one.folder)
    assert [path for path in left if path.exists()] == []


def test_an_option_that_is_no_longer_given_is_named(converted: Get, dpconvert: Call, tmp_path: Path) -> None:
    command = (POINTS, *where(converted(POINTS), tmp_path), "--limit", 2)
    dpconvert(*command, "--dense")
    assert "holds a conversion with other manifest and options; expected no --dense; found --dense; choose" in one_line(
        dpconvert(*command)
    )


def test_other_source_files_under_a_finished_task_are_refused_and_overwrite_replaces_it(
    converted: Get, dpconvert: Call, tiles: Path, tmp_path: Path
) -> None:
    one, out = converted(TILES), tmp_path / "out"
    folder = out / one.manifest.task
    dpconvert(TILES, *where(one, out))
    (folder / "mine.txt").write_text("not the converter's")
    for tile in sorted(tiles.rglob("*HE-01_000*.tif")):
        tile.unlink()
    command = (TILES, "--source", tiles, "--out", out, "--workers", 1, "--samples-per-shard", 100)
    assert "other source files and options; expected" in one_line(dpconvert(*command))
    assert dpconvert(*command, "--overwrite").code == 0
    fresh = run(one.manifest, tiles, tmp_path / "fresh", samples_per_shard=100)
    assert fresh.samples() == 232
    assert digests(folder).items() - digests(tmp_path / "fresh" / one.manifest.task).items() == {
        ("mine.txt", digests(folder)["mine.txt"])
    }


def test_a_task_whose_shard_vanished_is_not_taken_for_complete(converted: Get, dpconvert: Call, tmp_path: Path) -> None:
    one = converted(TILES)
    folder = shutil.copytree(one.folder, tmp_path / one.manifest.task)
    (folder / "test-000001.tar").unlink()
    answer = dpconvert(TILES, *where(one, tmp_path))
    assert answer.code == 1
    assert "task.json exists, but test-000001.tar is missing or cut; run with --overwrite" in one_line(answer)


def test_a_second_conversion_into_the_same_folder_is_refused(converted: Get, dpconvert: Call, tmp_path: Path) -> None:
    one = converted(TILES)
    (tmp_path / one.manifest.task).mkdir()
    with (tmp_path / one.manifest.task / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = dpconvert(TILES, *where(one, tmp_path))
    assert answer.code == 1
    assert one_line(answer).endswith(
        "UMCMColorectal: another conversion is writing to it; wait for it, or choose another --out"
    )
    assert dpconvert(TILES, *where(one, tmp_path)).code == 0


# --- damaged sources


def test_a_truncated_tile_is_named_and_mending_it_finishes(tiles: Path, converted: Get, tmp_path: Path) -> None:
    one, out = converted(TILES), tmp_path / "out"
    (tile,) = tiles.rglob("01_TUMOR/*HE-01_000*.tif")
    whole = tile.read_bytes()
    tile.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        SourceError,
        match=r"1 of 240 samples cannot be converted, the first: .*HE-01_000.*a truncated or damaged TIFF",
    ):
        run(one.manifest, tiles, out)
    assert not (out / one.manifest.task / "task.json").exists()
    assert len(names(out, "*.tar")) == 6
    assert names(out, "*.part") == []
    kept = {path: path.stat().st_mtime_ns for path in names(out, "*.tar")}
    tile.write_bytes(whole)
    run(one.manifest, tiles, out)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert digests(out / one.manifest.task) == digests(one.folder)


def test_shards_that_a_changed_source_has_no_more_are_removed(tiles: Path, converted: Get, tmp_path: Path) -> None:
    one, (first, *others) = converted(TILES), sorted(tiles.rglob("*.tif"))
    first.write_bytes(first.read_bytes()[:500])
    with pytest.raises(SourceError, match="1 of 240 samples cannot be converted"):
        run(one.manifest, tiles, tmp_path / "out")
    before = len(names(tmp_path / "out", "*.tar"))
    for tile in (first, *others[::2]):
        tile.unlink()
    run(one.manifest, tiles, tmp_path / "out")
    run(one.manifest, tiles, tmp_path / "anew")
    assert digests(tmp_path / "out" / one.manifest.task) == digests(tmp_path / "anew" / one.manifest.task)
    assert len(names(tmp_path / "out", "*.tar")) < before


def test_a_truncated_image_fails_before_anything_is_written(converted: Get, dpconvert: Call, tmp_path: Path) -> None:
    one = converted(POINTS)
    source = shutil.copytree(one.source, tmp_path / "source")
    (image,) = source.rglob("img3.bmp")
    image.write_bytes(image.read_bytes()[:1000])
    answer = dpconvert(POINTS, "--source", source, "--out", tmp_path / "out", "--workers", 1)
    assert answer.code == 1
    assert f"{source}: 1 of 10 images cannot be read, the first: {image.relative_to(source)}: " in one_line(answer)
    assert names(tmp_path / "out", "*.tar") == []


def test_a_file_that_vanishes_after_the_plan_is_a_failed_sample(
    tiles: Path, converted: Get, tmp_path: Path, interrupted: Callable[[int], None]
) -> None:
    one = converted(TILES)
    interrupted(0)
    with pytest.raises(KeyboardInterrupt):
        run(one.manifest, tiles, tmp_path / "out")
    source = conversion.Source.open(tiles, one.manifest)
    (tile,) = tiles.rglob("02_STROMA/*HE-05_001*.tif")
    tile.unlink()
    lines = (tmp_path / "out" / one.manifest.task / ".work" / "plan.jsonl").read_text().splitlines()
    plan = conversion.Plan.from_lines(lines)
    (rows,) = [rows for rows in plan.shards().values() if any(tile.name in row.files[0] for row in rows)]
    shard = jobs.ShardJob(rows, plan.classes, conversion.Options(), tmp_path / "out")
    (failure,) = jobs.make_shard(source, shard)[1]
    assert failure.source.endswith(tile.name)
    assert failure.reason == f"{tile.relative_to(tiles)}: cannot be read: No such file or directory"


def test_skip_failed_lists_what_is_left_out(tiles: Path, converted: Get, dpconvert: Call, tmp_path: Path) -> None:
    one = converted(TILES)
    for tile in sorted(tiles.rglob("*HE-03_00[01]*.tif"))[:3]:
        tile.write_bytes(tile.read_bytes()[:500])
    command = (TILES, "--source", tiles, "--out", tmp_path, "--workers", 1, "--skip-failed")
    answer = dpconvert(*command)
    assert answer.code == 1  # what was asked for is there, but not everything
    assert "237 samples" in answer.out
    assert "left out: 3 unreadable samples, listed in task.json" in answer.out
    card = json.loads(dpconvert(*command, "--json").out)
    assert len(card["failures"]) == 3
    assert all("HE-03" in failure["source"] and failure["reason"] for failure in card["failures"])
    assert verify(tmp_path / one.manifest.task, workers=1, report=Reporter(quiet=True))[1] == []


def test_a_limit_is_kept_per_class_and_set(converted: Get, tmp_path: Path) -> None:
    one = converted(TILES)
    card = run(one.manifest, one.source, tmp_path, limit=2)
    assert {split: of.classes for split, of in card.splits.items()} == {"train": [2] * 8, "test": [2] * 8}
    assert {d.reason for d in card.expectations} == {"limited to 2 samples per class and set"}


# --- the output folder


def test_a_full_disk_is_reported_in_one_line_and_the_run_continues_when_there_is_room(
    converted: Get, dpconvert: Call, tmp_path: Path
) -> None:
    one, disk = converted(TILES), tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("needs root to mount a small disk")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=300k", "none", disk], capture_output=True).returncode:
        pytest.skip("this machine does not let a small disk be mounted")
    try:
        answer = dpconvert(TILES, *where(one, disk))
        assert answer.code == 1
        assert "cannot be written: No space left on device; make room" in one_line(answer)
        assert names(disk, "*.part") == []
        had = len(names(disk, "*.tar"))
        assert had > 0
        subprocess.run([mount, "-o", "remount,size=64m", disk], check=True)
        again = dpconvert(TILES, *where(one, disk))
        assert f"{had} existing" in again.out
        assert digests(disk / one.manifest.task) == digests(one.folder)
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("place", ["out", "task"])
def test_a_file_in_place_of_the_folder_is_reported_in_one_line(
    place: str, converted: Get, dpconvert: Call, tmp_path: Path
) -> None:
    one, out = converted(TILES), tmp_path / "out"
    if place == "task":
        out.mkdir()
    (out if place == "out" else out / one.manifest.task).write_text("in the way")
    answer = dpconvert(TILES, *where(one, out))
    assert answer.code == 1
    assert f"{one.manifest.task}: cannot be written: " in one_line(answer)
    assert one_line(answer).endswith("; choose another --out")


def where(one: Converted, out: Path) -> tuple[Any, ...]:
    """The options that give the same bytes as the fixture `converted`."""
    return "--source", one.source, "--out", out, "--workers", 1, "--samples-per-shard", SAMPLES_PER_SHARD


def start(one: Converted, out: Path, *, workers: int) -> subprocess.Popen[bytes]:
    """The same conversion in a process group of its own."""
    options = [str(option) for option in where(one, out)] + ["--workers", str(workers), "--quiet"]
    command = [sys.executable, "-m", "dpconvert.cli", one.manifest.name, *options]
    with (out / "stderr.txt").open("w") as file:
        return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=file)


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the process and all its workers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def group_of(process: subprocess.Popen[bytes]) -> list[str]:
    """The running processes of its group."""
    running = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = stat.read_text().rpartition(") ")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if group == str(process.pid) and state != "Z":
            running.append(stat.parent.name)
    return running


def command(pid: str) -> bytes:
    """The command line of a process; empty for one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes] | None, seconds: float = 60) -> None:
    """Until the condition holds; fails where the process ends first, or time runs out."""
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, "ended too soon"
        assert time.monotonic() < end, "took too long"
        time.sleep(0.005)


def notes(folder: Path) -> int:
    """How many shards are noted as whole."""
    return len(list((folder / ".work").glob("*.tar.json")))


def names(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.rglob(pattern))
