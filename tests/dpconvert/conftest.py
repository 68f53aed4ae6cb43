"""Fixtures of the conversion tests: each source's fake drawn and converted once for all processes of a test run."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from PIL import Image

from dpconvert import card as cards
from dpconvert import cli
from dpconvert.conversion import convert
from dpconvert.manifest.catalog import find, known
from dpconvert.manifest.model import Manifest
from dpconvert.obtain.download import PATIENT
from dpconvert.plan.options import Options
from dpconvert.readers import with_defaults
from dpconvert.readers.fakes import draw_fake
from dpconvert.runtime import locks
from dpconvert.runtime.progress import Reporter
from dpconvert.shards.index import read_index
from tests.conftest import compressed_as_always

SAMPLES_PER_SHARD = 40
COMPARED = ("warwick-crc", "camelyon16", "umcm-colorectal")  # with what other processes make of them
ALIKE = {name for name in known() if name.startswith("segpath-")} - {"segpath-epithelium"}  # one reader, one fake
EVERY_SOURCE = [pytest.param(name, marks=pytest.mark.stress if name in ALIKE else ()) for name in sorted(known())]
settings.register_profile("steady", deadline=None, derandomize=True)  # the same examples on every machine
settings.load_profile("steady")


@dataclass(frozen=True)
class Converted:
    """A fake and what became of it. Shared by tests: never write into it."""

    manifest: Manifest
    source: Path
    folder: Path
    card: cards.TaskCard


@dataclass(frozen=True)
class Answer:
    """What one run of the command line came to."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Workplace:
    """A folder with a source of one's own in `source/`; manifests are written to `my.toml`, shards to `out/`."""

    folder: Path
    dpconvert: Callable[..., Answer]

    def convert(self, manifest: str, *options: object, verified: bool = True) -> list[dict[str, Any]]:
        """The rows of the index of the task `Mine`, converted by one process."""
        answer = self._converted(manifest, *options)
        assert (answer.code, answer.err) == (0, "")
        if verified:
            assert self.dpconvert("verify", self.folder / "out", "--workers", 1, "-q").code == 0
        return list(read_index(self.folder / "out" / "Mine" / "index.parquet").to_pylist())

    def refusal(self, manifest: str, *options: object) -> str:
        """The one line with which the conversion fails."""
        return one_line(self._converted(manifest, *options))

    def _converted(self, manifest: str, *options: object) -> Answer:
        (self.folder / "my.toml").write_text(manifest)
        places = ("--source", self.folder / "source", "--out", self.folder / "out")
        return self.dpconvert(self.folder / "my.toml", *places, "--workers", 1, "-q", "--overwrite", *options)


@pytest.fixture
def workplace(tmp_path: Path, dpconvert: Callable[..., Answer]) -> Workplace:
    return Workplace(tmp_path, dpconvert)


@pytest.fixture(autouse=True)
def nobody_waits_for_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads are tried again at once, where a test does not say how long they wait."""
    monkeypatch.setitem(PATIENT.__dict__, "wait", 0.01)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this test run see."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def converted_fake(shared: Path) -> Callable[[str], Converted]:
    """Name -> its fake, converted under the default options but for smaller shards."""

    @cache
    def get(name: str) -> Converted:
        manifest = with_defaults(find(name))
        source, out = shared / "sources", shared / "shards"
        with locks.held(shared / f"{name}.lock", wait=math.inf):
            if not (source / manifest.name).exists():
                draw_fake(manifest, source)
            if not (out / manifest.task / cards.FILE_NAME).exists():
                run(manifest, source / manifest.name, out)
        return Converted(manifest, source / manifest.name, out / manifest.task, cards.load(out / manifest.task))

    return get


@pytest.fixture(scope="session")
def converted(converted_fake: Callable[[str], Converted]) -> Callable[[str], Converted]:
    """The same, under the name that a module of tests may give another meaning."""
    return converted_fake


@pytest.fixture(scope="session")
def small_tiles(converted_fake: Callable[[str], Converted], shared: Path) -> Converted:
    """The fake of UMCM with all its 240 files, each cut to 24 x 24 pixels: most of a conversion's time is encoding."""
    whole, folder = converted_fake("umcm-colorectal"), shared / "small-tiles"
    with locks.held(shared / "small-tiles.lock", wait=math.inf):
        if not (folder / whole.manifest.task / cards.FILE_NAME).exists():
            shutil.copytree(whole.source, folder / "source", dirs_exist_ok=True)
            for tile in (folder / "source").rglob("*.tif"):
                with Image.open(tile) as image:
                    small = image.crop((0, 0, 24, 24))
                small.save(tile, compression="tiff_lzw")
            run(whole.manifest, folder / "source", folder)
    card = cards.load(folder / whole.manifest.task)
    return Converted(whole.manifest, folder / "source", folder / whole.manifest.task, card)


def run(manifest: Manifest, source: Path, out: Path, *, workers: int = 1, **options: object) -> cards.TaskCard:
    """Convert in this process, without a word."""
    chosen = Options.model_validate({"samples_per_shard": SAMPLES_PER_SHARD} | options)
    report = Reporter(quiet=True)
    with compressed_as_always() if manifest.name in COMPARED else nullcontext():
        return convert(manifest, source, out, chosen, workers=workers, overwrite=False, report=report).card


def one_line(answer: Answer) -> str:
    """What stands on stderr, which must be one line without a traceback, and nothing on stdout."""
    assert answer.out == ""
    assert answer.err.endswith("\n")
    lines = answer.err.splitlines()
    assert len([line for line in lines if line.startswith("dpconvert: error: ")]) == 1
    assert "Traceback" not in answer.err
    return lines[-1]


@pytest.fixture
def dpconvert(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """`dpconvert("list")` is the command line, in this process."""

    def call(*arguments: object) -> Answer:
        monkeypatch.setattr("sys.argv", ["dpconvert", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    return call
