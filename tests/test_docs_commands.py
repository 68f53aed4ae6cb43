"""Every command of the documents: understood by the programs, and run, in its page's order.

Those with a prompt run as they stand in an empty folder; the others in a small world of what their page assumes, see
tests/docs_world.py. NOT_RUN says which are only parsed, and why.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from dpconvert.manifest.catalog import find
from dpconvert.readers import fakes
from mtrain import doctor
from mtrain.data import shard_cache, storage
from mtrain.model.backbones import body_of
from mtrain.sweep import sweep_cost
from tests import docs_world
from tests.docs_world import Reader
from tests.documents import PROGRAMS, ROOT, Line, files, lines, not_said, pages, problem, programs_in
from tests.dpconvert import test_cytomine_server
from tests.mtrain import storages, test_export
from tests.small_programs import without_downloads, without_estimates

AUDIT = {"workers": 0, "size": 64}  # a network's own size takes seconds
SMALL_NETWORKS = {"timm:convnext_tiny": "timm:test_convnext"}  # network of a page -> one of its kind, without its time
RUN = [page for page in pages() if any(line.run for line in lines(page))]


def test_a_command_that_does_not_exist_is_found() -> None:
    assert problem("dpconvert", ["lungs-of-a-whale"])
    assert problem("mtrain", ["fit", "--no-such-option"])
    assert problem("mtrain", ["fit", "--leave-out"])
    assert problem("mtrain", ["fit", "--leave-out", "Lung"]) is None
    assert problem("dpconvert", ["my.toml", "--out", "shards/"]) is None


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_is_understood(page: Path) -> None:
    wrong = [
        f"{line.text}: {found}"
        for line in lines(page)
        for program, arguments in programs_in(line)
        if (found := problem(program, arguments))
    ]
    assert not wrong


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_shown_with_a_prompt_works(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    without_estimates(monkeypatch.setattr)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for name, content in files(page).items():
        (tmp_path / name).write_text(content)
    for line in lines(page):
        if line.run:
            _run(line)
            assert not_said(line, "".join(capsys.readouterr())) == []


# --- the others, in a small world of what the pages assume


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once for all processes of a test run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "docs-world"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            docs_world.build(folder.with_suffix(".part"))
            docs_world.readdress(folder.with_suffix(".part"), folder.with_suffix(".part"), folder)
            folder.with_suffix(".part").rename(folder)
    return folder


@pytest.fixture
def reader(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Reader]:
    """Somebody in a folder with all of it, and with the servers that the page of the test names."""
    here, page = tmp_path / "here", request.getfixturevalue("page").read_text()
    docs_world.moved(world, here)
    monkeypatch.chdir(here)
    docs_world.slurm(tmp_path / "bin")
    without_downloads(monkeypatch.setattr)
    without_estimates(monkeypatch.setattr)
    monkeypatch.setattr(sweep_cost, "STEPS", 2)
    monkeypatch.setattr(doctor, "_ranks", lambda: "2 processes over gloo")  # tests/test_terminal.py's
    paths = [str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    monkeypatch.setenv("PATH", os.pathsep.join(paths))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv(shard_cache.CACHE, "cache")
    monkeypatch.setenv(shard_cache.CACHE_SIZE, "1GB")
    storage.file_system.cache_clear()
    given = Reader({"/scratch/mtrain": str(tmp_path / "scratch"), "my-bucket": storages.BUCKET} | SMALL_NETWORKS)
    with ExitStack() as servers:
        if "s3://" in page:
            port = servers.enter_context(storages.s3_server())
            given.upload = partial(storages.upload, port)
            given.upload(here / "shards", "shards")
            for name, value in (storages.KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}).items():
                monkeypatch.setenv(name, value)
        if "cytomine.example.org" in page:
            fakes.draw_fake(find("human-lba"), here)
            site = servers.enter_context(test_cytomine_server.holding(here / "human-lba"))
            given.words |= {"https://cytomine.example.org": site.url, "1234": str(test_cytomine_server.PROJECT)}
            monkeypatch.setenv("CYTOMINE_PUBLIC_KEY", test_cytomine_server.PUBLIC)
            monkeypatch.setenv("CYTOMINE_PRIVATE_KEY", test_cytomine_server.PRIVATE)
        yield given


# what is only parsed, and why
NOT_RUN = {
    r"--to onnx": "seconds of imports; tests/mtrain/test_export.py runs the file that it writes",
    r"^torchrun --nnodes 8 ": "eight hosts",
    r"^hf auth login$": "asks for somebody's token",
    r"^pytest .* -k my-source$": "of the reader's own source; the contract runs over every one that is there",
    r"^export CYTOMINE_": "whose keys, the page does not say; those of the fake server are set",
    r"--engine ray": "run on a cluster by tests/test_ray.py",
    r"^dpconvert (manifests/examples/|warwick-crc --source w)": "real images: see test_real.py",
    r"^dpconvert janowczyk2 --dense": "real images; tests/dpconvert/test_dense_sources.py converts fakes",
    r"^python -m tests\.fuzz": "spoilt inputs for minutes; tests/fuzz/test_fuzz.py gives a few to each parser",
    r"without-LC25000Lung": "a training of minutes on real images",
    r"without-lung|--tasks Breast1": "more source tasks than the small world has; see tests/mtrain/test_influence.py",
    r"--soup$|^mtrain soup |/soups/|--run (lung|breast)$": (
        "several trainings from one start; tests/mtrain/test_soups.py combines some"
    ),
    r"without-WarwickCRC": "trainings of minutes on real images",
    r"--dense --leave-out Janow|--mode dense|Janowczyk2 --dense": "more masks than the small world has",
    r"masks\.toml|--sweep masks$": "more masks than the small world has; see tests/mtrain/test_dense_sweep.py",
    r"(pytorch_model|uni2-h|virchow2)\.bin|vitb8\.pth|phikon-v2": "weights that their authors hand out",
    r"^mtrain breakhis --backbone": "shards of BreaKHis, which the small world has not; see test_breakhis.py",
    r"^dpconvert fetch --pool ": "30 GB; tests/dpconvert/test_pool.py has a server on this machine",
    r"our-vit\.safetensors": "the reader's own weights; tests/mtrain/test_backbone_runs.py trains from a table",
    r"--split eva": "files to download; tests/dpconvert/test_sources_eva.py plans and converts the fakes",
    r"hf-hub:": "a download; tests/mtrain/test_hub.py reads the cache of the hub",
    r"MyTask": "the reader's own task; tests/mtrain/test_robustness.py runs the command",
}
LONG = {
    ROOT / "docs" / "real-run.md",  # a sweep and its evaluations, as in docs/how-to/publish.md, and fine-tunings
    ROOT / "docs" / "how-to" / "many-gpus.md",  # processes that import torch
}
# what a page takes for granted
BEFORE = {"docs/how-to/publish.md": "mtrain sweep paper --shards shards/"}


def not_run(line: Line) -> str | None:
    """Why a line is only parsed."""
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, line.text)), None)


def others(page: Path) -> list[Line]:
    """The lines without a prompt that can be run."""
    return [line for line in lines(page) if not line.run and not_run(line) is None]


def test_nothing_is_left_out_without_need() -> None:
    left_out = [line.text for page in pages() for line in lines(page) if not line.run and not_run(line)]
    assert {pattern for pattern in NOT_RUN for text in left_out if re.search(pattern, text)} == NOT_RUN.keys()
    assert len(left_out) == 69


@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_the_networks_that_others_stand_in_for_can_be_built(name: str) -> None:
    with torch.device("meta"):
        assert body_of(name, pretrained=False).module.num_features


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.stress if page in LONG else ()) for page in pages() if others(page)],
    ids=lambda p: p.relative_to(ROOT).as_posix(),
)
def test_every_command_without_a_prompt_works_too(
    page: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "HfApi", test_export.Hub)
    monkeypatch.setattr(test_export.Hub, "asked", [])
    for name, content in files(page).items():
        Path(name).write_text(content)
    name = page.relative_to(ROOT).as_posix()
    before = [Line(name, BEFORE[name], run=False)] if name in BEFORE else []
    for line in [*before, *others(page)]:
        reader.types(line)


def _run(line: Line) -> None:
    """Our programs in this process (each start of torch costs seconds), anything else in a shell.

    They start no processes of their own, unless the line says so: those would import all of it again.
    """
    started = list(programs_in(line))
    if not started:
        subprocess.run(line.text, shell=True, check=True, capture_output=True)
    for program, arguments in started:
        try:
            alone = {arguments[0]: {"workers": 1} if program == "dpconvert" else {"workers": 0}, "audit-labels": AUDIT}
            status = PROGRAMS[program].main(arguments, standalone_mode=False, default_map=alone) or 0
        except SystemExit as stop:
            status = stop.code
        assert status == line.status, line.text
