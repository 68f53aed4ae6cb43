"""Faults of machines and people in a conversion: what failed is listed and made again alone."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dpconvert import conversion
from dpconvert.errors import OutputError, SourceError
from dpconvert.runtime import locks
from dpconvert.shards import job as jobs
from dpconvert.tasks import webpage
from dpconvert.tasks.verify import verify
from tests.dpconvert.conftest import Answer, Converted, one_line, run
from tests.dpconvert.test_audit import QUIET
from tests.dpconvert.test_contract import digests
from tests.dpconvert.test_convert import kill, names, notes, start, wait_for, where
from tests.power_loss import on_disk_when_named

Get = Callable[[str], Converted]
Call = Callable[..., Answer]
TILES, POINTS = "umcm-colorectal", "warwick-crc"
pytestmark = pytest.mark.usefixtures("slow_png")
SHARDS = "*.tar"


@pytest.fixture
def converted(converted_fake: Get, small_tiles: Converted) -> Get:
    """As for all tests, but the source of whole images has small ones."""
    return lambda name: small_tiles if name == TILES else converted_fake(name)


@pytest.fixture
def tiles(converted: Get, tmp_path: Path) -> Path:
    """A copy of a source of whole images, to damage."""
    return Path(shutil.copytree(converted(TILES).source, tmp_path / "source"))


def damage(source: Path, pattern: str) -> dict[Path, bytes]:
    """Spoil files without changing their sizes, so that a listing does not show it; the whole ones."""
    whole = {path: path.read_bytes() for path in sorted(source.rglob(pattern))}
    assert whole
    for path, data in whole.items():
        path.write_bytes(bytes(len(data)))
    return whole


# --- what failed, and only that


def test_failed_samples_are_listed_and_retried_alone(
    tiles: Path, converted: Get, dpconvert: Call, tmp_path: Path
) -> None:
    one, out = converted(TILES), tmp_path / "out"
    folder = out / one.manifest.task
    whole = damage(tiles, "*HE-03_00[01]*.tif")
    command = (TILES, "--source", tiles, "--out", out, "--workers", 1, "--samples-per-shard", 40)
    first = dpconvert(*command, "--skip-failed")
    assert first.code == 1
    failures = json.loads((folder / "task.json").read_text())["failures"]
    assert len(failures) == len(whole)
    assert f"failed: {failures[0]['key']}: " in first.out
    assert "listed in task.json; repair the files, then run again with --retry-failed" in first.out
    assert verify(folder, workers=1, report=QUIET)[1] == []
    failed = {row.shard for row in plan_of(folder).rows if row.key in {f["key"] for f in failures}}
    kept = {path: path.stat().st_mtime_ns for path in names(folder, SHARDS) if path.name not in failed}
    assert kept
    assert dpconvert(*command, "--skip-failed").code == 1  # complete as asked, and still something is missing

    for path, data in whole.items():
        path.write_bytes(data)
    again = dpconvert(*command, "--retry-failed")
    assert again.code == 0
    assert f"({len(failed)} shards written, {len(kept)} existing)" in again.out
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    same = digests(one.folder)
    assert {name: digest for name, digest in digests(folder).items() if name.endswith(("tar", "parquet"))} == {
        name: digest for name, digest in same.items() if name.endswith(("tar", "parquet"))
    }
    assert not (folder / ".work").exists()


@pytest.mark.parametrize("option", [("--mpp", 0.5), ("--mpp-override", 0.5)], ids=lambda option: option[0])
def test_a_retry_with_options_that_change_the_manifest_resumes(
    option: tuple[str, float], tiles: Path, dpconvert: Call, tmp_path: Path
) -> None:
    whole = damage(tiles, "*HE-03_00[01]*.tif")
    command = (TILES, "--source", tiles, "--out", tmp_path / "out", "--workers", 1, *option)
    assert dpconvert(*command, "--skip-failed").code == 1
    for path, data in whole.items():
        path.write_bytes(data)
    again = dpconvert(*command, "--retry-failed")
    assert again.code == 0, again.err
    assert dpconvert(*command, "--skip-failed").code == 0  # the same request still


def test_a_retry_that_mends_some_lists_the_rest(tiles: Path, converted: Get, dpconvert: Call, tmp_path: Path) -> None:
    one, out = converted(TILES), tmp_path / "out"
    whole = damage(tiles, "*HE-03_00[01]*.tif")
    command = (TILES, "--source", tiles, "--out", out, "--workers", 1, "--samples-per-shard", 40)
    dpconvert(*command, "--skip-failed")
    remarks = next(iter(whole))
    remarks.write_bytes(whole[remarks])
    assert dpconvert(*command, "--retry-failed").code == 1
    failures = json.loads((out / one.manifest.task / "task.json").read_text())["failures"]
    assert len(failures) == len(whole) - 1
    assert remarks.name not in {Path(failure["source"]).name for failure in failures}


def test_a_failed_conversion_lists_all_failures_in_a_file_and_may_then_skip_them(
    tiles: Path, converted: Get, dpconvert: Call, tmp_path: Path
) -> None:
    one, out = converted(TILES), tmp_path / "out"
    whole = damage(tiles, "*HE-03_00[01]*.tif")
    command = (TILES, "--source", tiles, "--out", out, "--workers", 1, "--samples-per-shard", 40)
    answer = dpconvert(*command)
    assert answer.code == 1
    path = out / one.manifest.task / ".work" / "failed.json"
    assert f"{path} lists them all; repair the files" in one_line(answer)
    assert answer.err.count("failed: ") == min(len(whole), 10)
    listed = json.loads(path.read_text())
    assert [sorted(failure) for failure in listed] == [["key", "reason", "source"]] * len(whole)
    assert len(names(out, SHARDS)) == len(names(one.folder, SHARDS)) - len(shards_of(out, listed))
    skipped = dpconvert(*command, "--skip-failed")
    assert skipped.code == 1
    assert f"left out: {len(whole)} unreadable samples" in skipped.out


def shards_of(out: Path, failures: list[dict[str, str]]) -> set[str]:
    keys = {failure["key"] for failure in failures}
    (folder,) = (path for path in out.iterdir() if path.is_dir())
    return {row.shard for row in plan_of(folder).rows if row.key in keys}


def plan_of(folder: Path) -> conversion.Plan:
    lines = (folder / ".work" / "plan.jsonl").read_text().splitlines()
    return conversion.Plan.from_lines(lines)


def test_a_retry_with_other_options_is_refused_and_takes_nothing_back(
    tiles: Path, converted: Get, dpconvert: Call, tmp_path: Path
) -> None:
    damage(tiles, "*HE-03_000*.tif")
    command = (TILES, "--source", tiles, "--out", tmp_path / "out", "--workers", 1)
    dpconvert(*command, "--skip-failed")
    folder = tmp_path / "out" / converted(TILES).manifest.task
    before = digests(folder)
    answer = dpconvert(*command, "--retry-failed", "--limit", 3)
    assert answer.code == 1
    assert "holds a conversion with other options" in one_line(answer)
    assert digests(folder) == before


def test_images_that_failed_in_the_plan_are_planned_again(converted: Get, dpconvert: Call, tmp_path: Path) -> None:
    one, out = converted(POINTS), tmp_path / "out"
    source = shutil.copytree(one.source, tmp_path / "source")
    whole = damage(source, "img3.bmp")
    command = (POINTS, "--source", source, "--out", out, "--workers", 1, "--samples-per-shard", 40)
    assert dpconvert(*command, "--skip-failed").code == 1
    for path, data in whole.items():
        path.write_bytes(data)
    assert dpconvert(*command, "--retry-failed").code == 0
    made, wanted = digests(out / one.manifest.task), digests(one.folder)
    assert {name: made[name] for name in made if name.endswith("tar")} == {
        name: wanted[name] for name in wanted if name.endswith("tar")
    }


# --- killed, full, read-only, half-way


def test_a_worker_that_the_kernel_kills_is_reported_in_one_line_and_the_run_continues(
    converted: Get, tmp_path: Path
) -> None:
    one = converted(POINTS)
    folder = tmp_path / one.manifest.task
    process = start(one, tmp_path, workers=2)
    try:
        wait_for((folder / ".work" / "plan.jsonl").exists, process, seconds=120)  # every shard is still to be made
        (server,) = children(process.pid, b"forkserver")
        workers = children(server)
        assert 1 <= len(workers) <= 2
        for worker in workers:  # one of them may be idle to the end, and is not missed
            os.kill(worker, signal.SIGKILL)
        process.wait(timeout=60)
    finally:
        kill(process)
    (line,) = (tmp_path / "stderr.txt").read_text().splitlines()
    assert process.returncode == 1
    assert line.startswith("dpconvert: error: a worker process was killed; often for lack of memory: ")
    assert not (folder / "task.json").exists()
    run(one.manifest, one.source, tmp_path)
    assert digests(folder) == digests(one.folder)


def children(pid: int, of: bytes = b"") -> list[int]:
    """The processes that a process has started, of those whose command line has `of` in it."""
    started = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [child for child in started if of in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.parametrize("notes_too", [False, True])
def test_every_shard_without_a_task_json_is_finished(notes_too: bool, converted: Get, tmp_path: Path) -> None:
    """As a kill between the last shard and task.json leaves it; and where even the notes are gone."""
    one = converted(TILES)
    folder = tmp_path / one.manifest.task
    run(one.manifest, one.source, tmp_path)
    finish = conversion._finish
    (folder / "task.json").unlink()
    if notes_too:
        shutil.rmtree(folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(conversion, "_finish", _killed)
            with pytest.raises(KeyboardInterrupt):
                run(one.manifest, one.source, tmp_path)
        assert notes(folder) == len(names(folder, SHARDS))
    assert conversion._finish is finish
    run(one.manifest, one.source, tmp_path)
    assert digests(folder) == digests(one.folder)


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_shards_of_other_library_versions_are_made_again(
    converted: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a resumed conversion would mix bytes of two encoders."""
    one = converted(TILES)
    monkeypatch.setattr(conversion, "_finish", _killed)
    with pytest.raises(KeyboardInterrupt):
        run(one.manifest, one.source, tmp_path)
    folder = tmp_path / one.manifest.task
    before = {path.name: path.stat().st_mtime_ns for path in names(folder, SHARDS)}
    versions = jobs.tools() | {"pillow": "99.0"}
    monkeypatch.setattr(jobs, "tools", lambda: versions)
    with pytest.raises(KeyboardInterrupt):
        run(one.manifest, one.source, tmp_path)
    after = {path.name: path.stat().st_mtime_ns for path in names(folder, SHARDS)}
    assert all(after[name] > before[name] for name in before)


@pytest.mark.parametrize("how", ["vanishes", "is cut"])
def test_a_source_file_that_goes_while_shards_are_made_is_a_failed_sample(
    how: str, tiles: Path, converted: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, write, made = converted(TILES), jobs.write_shard, []
    whole = {path: path.read_bytes() for path in sorted(tiles.rglob("*.tif"))}

    def going(*arguments: object) -> object:
        made.append(1)
        if len(made) == 3:
            for path, data in whole.items():
                path.unlink() if how == "vanishes" else path.write_bytes(data[: len(data) // 2])
        return write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(jobs, "write_shard", going)
    told = "No such file or directory" if how == "vanishes" else "truncated or damaged"
    with pytest.raises(SourceError, match=rf"samples cannot be converted, the first: .*{told}"):
        run(one.manifest, tiles, tmp_path / "out")
    assert len(names(tmp_path / "out", SHARDS)) == 2
    assert names(tmp_path / "out", "task.json") == []
    for path, data in whole.items():
        path.write_bytes(data)
    run(one.manifest, tiles, tmp_path / "out")
    assert digests(tmp_path / "out" / one.manifest.task) == digests(one.folder)


@contextmanager
def mounted(place: Path, options: str) -> Iterator[None]:
    """A small file system of its own; skips where this machine has none to give."""
    place.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("needs root to mount a small disk")
    if subprocess.run([mount, "-t", "tmpfs", "-o", options, "none", place], capture_output=True).returncode:
        pytest.skip("this machine does not let a small disk be mounted")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_read_only_output_is_reported_in_one_line(converted: Get, dpconvert: Call, tmp_path: Path) -> None:
    one = converted(TILES)
    with mounted(tmp_path / "disk", "size=1m,ro"):
        answer = dpconvert(TILES, *where(one, tmp_path / "disk"))
    assert answer.code == 1
    assert one_line(answer).endswith(
        f"{tmp_path}/disk/UMCMColorectal: cannot be written: Read-only file system; choose another --out"
    )


def test_a_page_in_a_read_only_folder_is_reported_in_one_line(tmp_path: Path) -> None:
    """There, the system also refuses to remove what was never written."""
    with mounted(tmp_path / "disk", "size=1m,ro"), pytest.raises(OutputError) as caught:
        webpage.write(["page"], tmp_path / "disk" / "page.html", "--out")
    assert str(caught.value).startswith(f"{tmp_path}/disk/page.html: cannot be written: Read-only file system; make")


def test_the_disk_has_every_file_when_it_gets_its_name(
    converted: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss of power leaves whole files or none; of notes a cut one is seen, and its shard made again."""
    one, named = converted(TILES), on_disk_when_named(monkeypatch)
    run(one.manifest, one.source, tmp_path, limit=1)
    folder = tmp_path / one.manifest.task
    made = {path.name for path in folder.rglob("*") if path.is_file()} - {".lock"}
    assert made <= named.keys()
    assert {name: named[name] for name in made if named[name][0] != named[name][1]} == {}


def test_times_of_files_decide_nothing(converted: Get, tmp_path: Path) -> None:
    """A clock that jumps leaves files of the future and of 1970."""
    one = converted(TILES)
    source = shutil.copytree(one.source, tmp_path / "source")
    for number, path in enumerate(sorted(path for path in source.rglob("*") if path.is_file())):
        os.utime(path, (4e9, 4e9) if number % 2 else (0, 0))
    run(one.manifest, source, tmp_path / "out")
    assert digests(tmp_path / "out" / one.manifest.task) == digests(one.folder)


# --- locks


def held(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock of a folder until it is killed."""
    code = (
        "import sys, time; from pathlib import Path; from dpconvert.runtime.locks import locked\n"
        "with locked(Path(sys.argv[1]), 'taken', 'wait', 'choose'): print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "held\n"
    return process


def take(folder: Path) -> None:
    with locks.locked(folder, "taken", "wait", "choose"):
        pass


def test_a_lock_tells_who_holds_it_and_goes_with_its_process(tmp_path: Path) -> None:
    process = held(tmp_path)
    try:
        with pytest.raises(OutputError, match="taken") as caught:
            take(tmp_path)
        assert f"found process {process.pid} on {socket.gethostname()}, since 20" in str(caught.value)
    finally:
        process.kill()
        process.wait()
    take(tmp_path)
    assert (tmp_path / ".lock").read_bytes() == b""


def no_kernel_locks(*_: object) -> None:
    raise OSError(errno.ENOSYS, "no locks here")


@pytest.mark.parametrize(
    ("host", "pid", "started", "free"),
    [
        (None, 2**22 + 1, "5", True),  # no such process
        (None, os.getpid(), "5", True),  # another process that has had the number before
        (None, os.getpid(), None, False),
        ("elsewhere", 1, "5", False),  # nobody can tell
    ],
    ids=["gone", "another of that number", "alive", "on another host"],
)
def test_without_locks_of_the_kernel_the_note_decides(
    host: str | None, pid: int, started: str | None, free: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", no_kernel_locks)
    monkeypatch.setattr(locks, "SETTLED", 0.0)
    holder = {"host": host or socket.gethostname(), "pid": pid, "started": started or locks._started(pid)}
    (tmp_path / ".lock").write_text(json.dumps(holder | {"since": time.strftime("%H:%M")}))
    if free:
        take(tmp_path)
    else:
        with pytest.raises(OutputError, match=f"taken; found process {pid} on "):
            take(tmp_path)


def test_without_locks_of_the_kernel_one_of_two_that_take_it_at_once_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both saw it free; the note that was written last counts."""
    other = json.dumps({"host": "elsewhere", "pid": 1, "started": "5", "since": time.strftime("%H:%M")})
    monkeypatch.setattr(fcntl, "flock", no_kernel_locks)
    monkeypatch.setattr(time, "sleep", lambda _: (tmp_path / ".lock").write_text(other))
    with pytest.raises(OutputError, match="taken; found process 1 on elsewhere"):
        take(tmp_path)


@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "note"])
def test_whether_a_lock_is_held_is_seen_without_taking_it(
    kernel: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernel:
        monkeypatch.setattr(fcntl, "flock", no_kernel_locks)
        monkeypatch.setattr(locks, "SETTLED", 0.0)
    path = tmp_path / ".lock"
    assert not locks.is_held(path)
    assert not path.exists()
    with locks.held(path):
        assert locks.is_held(path)
        with pytest.raises(locks.TakenError) as caught, locks.held(path):
            pass
        assert caught.value.holder is not None
        assert caught.value.holder.pid == os.getpid()
    assert path.exists()
    assert not locks.is_held(path)


def test_a_lock_that_is_waited_for_is_had_when_its_holder_is_gone(tmp_path: Path) -> None:
    process = held(tmp_path)
    killer = threading.Timer(0.2, process.kill)
    killer.start()
    try:
        with locks.held(tmp_path / ".lock", wait=60):
            assert process.wait(timeout=60) == -signal.SIGKILL
    finally:
        killer.join()
        process.kill()
        process.wait()


def test_a_lock_whose_file_its_last_holder_removed_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking; else two processes would lock two files of one name."""
    path, lock = tmp_path / ".lock", fcntl.flock

    def removing(file: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        path.unlink()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", removing)
    with locks.held(path, wait=5):
        assert locks.is_held(path)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 10, b"[]", b'{"pid": "x"}', b'{"host": "a", "pid": 1e999}', b"[" * 100_000]
)
def test_what_an_old_lock_file_holds_harms_nobody(content: bytes, tmp_path: Path) -> None:
    (tmp_path / ".lock").write_bytes(content)
    take(tmp_path)


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("keep")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").symlink_to(precious)
    with pytest.raises(OutputError, match=r"cannot be written: Too many levels of symbolic links"):
        take(tmp_path / "out")
    assert precious.read_text() == "keep"
