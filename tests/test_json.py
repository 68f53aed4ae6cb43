"""`--json` of every command: one JSON document on stdout when the work is done, and nothing else there.

Captured where processes write (file descriptor 1), so that a library that prints is seen too.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from PIL import Image

import dpconvert.cli
import mtrain.cli
from dpconvert.conversion import convert
from dpconvert.doctor import Check
from dpconvert.manifest.catalog import find
from dpconvert.plan.options import Options
from dpconvert.readers import with_defaults
from dpconvert.readers.fakes import draw_fake
from dpconvert.runtime.progress import Reporter
from mtrain.config import FitConfig
from mtrain.runs.run_folder import Run
from mtrain.sweep import sweep_cost
from mtrain.train.fit import fit
from tests.mtrain.pools import write_pool, write_task
from tests.mtrain.sweeps import write_sweep
from tests.mtrain.test_breakhis import SIZES, told

PROGRAMS = {"dpconvert": dpconvert.cli, "mtrain": mtrain.cli}
QUIET = Reporter(quiet=True)
TINY = {"backbone": "shufflenet_v2_x0_5", "weights": "random", "iterations": 2, "batch": 4, "size": 32, "workers": 0}
SETTINGS = [f"--{name}={value}" for name, value in TINY.items()]
SWEEP = f"""
shards = "pool"
leave_out = ["Gamma"]
seeds = [0]
[grid]
backbone = ["{TINY["backbone"]}"]
lr = [1e-2]
warmup = [false]
[fit]
weights = "random"
iterations = 2
batch = 4
size = 32
workers = 0
"""
# command -> arguments, the keys of the document (of its first entry where it is a list), and the exit status
ASKED: dict[str, tuple[list[str], set[str], int]] = {
    "dpconvert necrosis": (["--workers=1"], {"task", "digest", "splits", "failures"}, 0),
    "dpconvert all": (["--workers=1"], {"task", "digest", "splits", "failures"}, 0),
    "dpconvert list": ([], {"name", "task", "kind", "classes"}, 0),
    "dpconvert show": (["necrosis"], {"name", "task", "licence", "files"}, 0),
    "dpconvert check": (["necrosis"], {"files", "examples", "counts", "problems", "warnings", "notes"}, 0),
    "dpconvert init": (["sources/necrosis"], {"manifest", "ready", "shape", "task", "questions", "check"}, 1),
    "dpconvert fake": (["lung"], {"source", "folder"}, 0),
    "dpconvert fetch": (["lung"], {"source", "folder", "came", "had", "by_hand", "url"}, 1),
    "dpconvert pool": (["open-hour"], {"pool", "title", "sources"}, 0),
    "dpconvert verify": (["shards", "--workers=1"], {"folder", "task", "digest", "problems"}, 0),
    "dpconvert audit": (["shards", "--workers=1"], {"clean", "tasks"}, 0),
    "dpconvert preview": (["shards"], {"page", "tasks", "problems"}, 0),
    "dpconvert preview necrosis": ([], {"picture", "counts", "files", "warnings"}, 0),
    "dpconvert unpack": (["shards"], {"task", "folder", "made", "had"}, 0),
    "dpconvert doctor": ([], {"name", "ok", "found", "remedy"}, 0),
    "mtrain fit": (["--run=new", "--shards=pool", *SETTINGS], {"run", "state", "iteration", "of", "folder"}, 0),
    "mtrain watch": ([], {"run", "state", "iteration", "seconds_left", "scores"}, 0),
    "mtrain watch --sweep=written": ([], {"sweep", "cells", "results", "ranks"}, 0),
    "mtrain runs": ([], {"run", "state", "iteration", "of", "left_out"}, 0),
    "mtrain transfer": (["--workers=0"], {"task", "score", "set", "mode"}, 0),
    "mtrain audit-labels": (
        ["--run=toy", "--task=Gamma", "--workers=0"],
        {"task", "doubts"},
        0,
    ),
    "mtrain robustness": (
        ["--run=toy", "--target=Gamma", "--by=part", "--pattern=^gamma-(?P<part>train|val)", "--workers=0"],
        {"task", "by", "index", "interval", "chance", "centres", "notes"},
        0,
    ),
    "mtrain features": (["--task=Gamma", "--workers=0"], set(), 0),
    "mtrain influence": (
        ["--run=toy", "--target=Gamma", "--samples=4", "--workers=0"],
        {"target", "sources"},
        0,
    ),
    "mtrain evaluate": (["--run=toy", "--mode=svm", "--no-baseline", "--workers=0"], {"task", "score", "source"}, 0),
    "mtrain breakhis": (["--shards=BreakHis", "--workers=0"], {"backbone", "n_train"}, 0),
    "mtrain sweep": (["small.toml"], {"sweep", "folder", "cells", "scored"}, 0),
    "mtrain sweep small.toml --plan": ([], {"hours", "cells"}, 0),
    "mtrain sweep small.toml --sbatch=job.sh": ([], {"script", "parts"}, 0),
    "mtrain soup": (["toy", ".copies/toy", "--name=both"], {"text", "parts", "images", "folder"}, 0),
    "mtrain select": (["--sweep=written"], {"targets"}, 0),
    "mtrain report": ([], {"page", "table"}, 0),
    "mtrain report --sweep=written": ([], {"page"}, 0),
    "mtrain export": ([], {"folder", "files", "loading", "address"}, 0),
    "mtrain predict": (["picture.png", "--task=Alpha", "--patch=32", "--device=cpu"], {"file", "classes"}, 0),
    "mtrain release": (["--shards=pool", *SETTINGS], {"folder", "files"}, 0),
    "mtrain backbones": ([], {"name", "title", "licence", "url", "published"}, 0),
    "mtrain backbones show uni": ([], {"name", "title", "licence", "url", "published"}, 0),
    "mtrain compare": (
        [
            "--run=toy",
            f"--backbone={TINY['backbone']}=random",
            "--size=32",
            "--target=Gamma",
            "--shards=pool",
            "--workers=0",
            "--device=cpu",
        ],
        {"mode", "reference", "tasks", "networks", "notes", "page"},
        0,
    ),
    "mtrain doctor": ([], {"name", "ok", "found", "remedy"}, 0),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source, its shards, a pool, a finished run that left Gamma out, a sweep's results, an image."""
    here = tmp_path_factory.mktemp("made")
    draw_fake(find("necrosis"), here / "sources")
    convert(
        with_defaults(find("necrosis")),
        here / "sources" / "necrosis",
        here / "shards",
        Options(),
        workers=1,
        overwrite=False,
        report=QUIET,
    )
    write_pool(here / "pool")
    write_task(here / "BreakHis", sizes=SIZES, attributes=told)
    fit(FitConfig(shards=str(here / "pool"), leave_out=("Gamma",), **TINY), Run(here / "runs" / "toy"), QUIET)
    shutil.copytree(here / "runs" / "toy", here / "runs" / ".copies" / "toy")
    write_sweep(here / "sweeps" / "written", lambda combination, _task, seed: 0.5 * combination.lr + 0.1 * seed)
    (here / "small.toml").write_text(SWEEP)
    Image.new("RGB", (64, 64), "pink").save(here / "picture.png")
    return here


def test_every_command_is_asked() -> None:
    commands = {f"{program} {name}" for program, module in PROGRAMS.items() for name in module.group.commands}
    assert commands <= ASKED.keys()


@pytest.mark.parametrize("command", ASKED)
def test_a_program_gets_one_document_and_nothing_else(
    command: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made, tmp_path / "here", copy_function=shutil.copyfile)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sweep_cost, "STEPS", 2)
    for program in PROGRAMS:
        monkeypatch.setattr(f"{program}.doctor.checks", Mock(return_value=[Check("disk", ok=True, found="")]))
    arguments, keys, status = ASKED[command]
    words = [*command.split(), *arguments, "--json"]
    monkeypatch.setattr(sys, "argv", words)
    code = 0
    try:
        PROGRAMS[words[0]].main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    answer = capfd.readouterr()
    assert code == status, answer.err
    assert keys <= _keys(json.loads(answer.out))


def _keys(found: Any) -> set[str]:
    first = found[0] if isinstance(found, list) else found
    return set(first) if isinstance(first, dict) else set()
