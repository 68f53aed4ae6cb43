"""Files whose reading takes too much memory or time, or crashes the process: only they fail."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpconvert.card import TaskCard
from dpconvert.conversion import convert
from dpconvert.errors import OutputError, ReadError
from dpconvert.image import open_image
from dpconvert.manifest.catalog import find
from dpconvert.plan.options import Options
from dpconvert.readers import with_defaults
from dpconvert.runtime import limits, processes
from dpconvert.runtime.limits import Limits
from dpconvert.runtime.progress import Reporter
from tests.dpconvert.hostile import CASES, limited
from tests.dpconvert.test_jpeg2000 import coding, stream
from tests.dpconvert.workers import kill_the_other, process, read_by_name, take_memory

SMALL = Limits(memory=1 << 28, seconds=0.2)
TOML = """
task = "Toy"
shape = "folders"
[files.images]
pattern = '(?P<class>\\w+)/(?P<name>[^/]+)\\.(png|jp2)$'
"""
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit the memory of a process")
TOLD = {
    "endless": "endless: reading it takes too much time; expected at most 0.2 s of processor time; found more; "
    "if the file is good, allow more with --limit-seconds",
    "large": "large: reading it takes too much memory; expected at most 0.25 GiB; found more; "
    "if the file is good, allow more with --limit-memory",
    "crash": "crash: a library crashed while reading it; found signal SIGSEGV; "
    "fetch it again; if it is good, report it to the program's authors",
    "trap": "trap: a library gave up while reading it, as some do without enough memory; expected at most 0.25 GiB; "
    "found signal SIGTRAP; if the file is good, allow more with --limit-memory",
}


@ON_LINUX
@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_exceeds_a_limit_or_crashes_fails_and_nothing_else(workers: int) -> None:
    good = [f"good {number}" for number in range(20)]
    found = list(processes.run(read_by_name, "context", [*good[:10], *TOLD, *good[10:]], workers, SMALL))
    assert sorted(found) == sorted([*good, *TOLD.values()])


def test_a_file_that_several_workers_read_at_once_fails_for_each_of_them() -> None:
    """Two parts of one slide, or two shards with samples of one image."""
    found = list(processes.run(read_by_name, "context", ["endless"] * 4, 2, SMALL))
    assert found == [TOLD["endless"]] * 4


def test_a_worker_that_is_killed_from_outside_is_no_fault_of_a_file() -> None:
    with pytest.raises(OutputError, match=r"a worker process was killed; often for lack of memory"):
        list(processes.run(read_by_name, "context", ["killed"], 2, SMALL))


@ON_LINUX
def test_memory_is_limited_in_a_process_that_works_alone_and_only_while_it_reads() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    [found] = processes.run(read_by_name, "context", ["large"], 1, Limits(memory=1 << 28))
    assert found == TOLD["large"]
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    take_memory()
    [found] = processes.run(read_by_name, "context", ["large"], 1, Limits(memory=0))
    assert found == "large"


@ON_LINUX
def test_hostile_images_take_no_more_memory_than_allowed() -> None:
    """Half a gigabyte to eight each, of some hundred bytes."""
    names = [name for name in CASES if name.startswith("jpeg_2000")]
    found = dict(one.split(": ", 1) for one in processes.run(limited, "context", names, 2, Limits(memory=1 << 28)))
    assert found == dict.fromkeys(names, "DIR/a.tif: segment 0 cannot be read: opj_decode or opj_end_decompress failed")


@ON_LINUX
def test_a_jpeg_2000_that_needs_more_memory_than_allowed_is_not_called_damaged(tmp_path: Path) -> None:
    """OpenJPEG reports broken data for both."""
    Image.new("RGB", (4000, 3000)).save(tmp_path / "a.jp2")
    Image.effect_noise((64, 64), 50).save(tmp_path / "cut.jp2")
    (tmp_path / "cut.jp2").write_bytes((tmp_path / "cut.jp2").read_bytes()[:1000])
    for name, told in (("a.jp2", "takes too much memory.*--limit-memory"), ("cut.jp2", "damaged or missing")):
        with limits.limited(Limits(memory=1 << 24)), pytest.raises(ReadError, match=told), limits.reading(name):
            open_image([tmp_path / name]).read(0, 0, 1, 1)


def test_a_hostile_image_takes_no_more_time_than_allowed() -> None:
    name = "jpeg_2000_of_hundreds_of_millions_of_packets"
    [found] = processes.run(limited, "context", [name], 2, Limits(memory=0, seconds=0.2))
    assert found.startswith(f"{name}: reading it takes too much time; expected at most 0.2 s of processor time")


def test_a_conversion_leaves_out_a_hostile_image_alone(tmp_path: Path) -> None:
    """Its shard, which its end cut, is written with all other images, and nothing of the first attempt stays."""
    (tmp_path / "toy.toml").write_text(TOML)
    for folder in ("good", "with"):
        for number in range(6):
            path = tmp_path / folder / ("no" if number % 2 else "yes") / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(path)
    (tmp_path / "with" / "no" / "7.jp2").write_bytes(stream(coding(4, 65_535)))

    def shards(folder: str) -> TaskCard:
        options, quiet = Options(skip_failed=True), Reporter(quiet=True)
        manifest, out = with_defaults(find(str(tmp_path / "toy.toml"))), tmp_path / "out" / folder
        limit = Limits(memory=0, seconds=0.3)
        return convert(
            manifest, tmp_path / folder, out, options, workers=2, overwrite=False, report=quiet, limits=limit
        ).card

    good, found = shards("good"), shards("with")
    [failure] = found.failures
    assert (failure.source, good.failures, found.samples()) == ("no/7.jp2", [], good.samples())
    assert failure.reason == (
        "no/7.jp2: reading it takes too much time; expected at most 0.3 s of processor time; found more; "
        "if the file is good, allow more with --limit-seconds"
    )
    assert not list((tmp_path / "out").rglob("*.part"))


def test_a_worker_that_is_killed_between_two_items_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing tells of it: it may have held what the others wait for."""
    monkeypatch.setattr(processes, "SILENCE", 0.2)
    with processes.pool(None, 2) as pool:
        workers = set(processes.run(process, None, range(8), pool))
        assert len(workers) == 2
        with pytest.raises(OutputError, match="a worker process was killed"):
            list(processes.run(kill_the_other, None, [workers], pool))
