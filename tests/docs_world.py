"""What the documents assume to be there, in small: sources, shards, a run, servers; and how their lines are run.

Our programs run in this process (each start of torch costs seconds), as tests/small_programs.py has them. What is not
ours is stood in for: `aws` by uploads to a server on this machine, `sbatch` by running the script's first job.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tifffile
import torch
from PIL import Image

from dpconvert.conversion import convert
from dpconvert.manifest import catalog
from dpconvert.plan.options import Options
from dpconvert.readers import fakes, with_defaults
from dpconvert.runtime.progress import Reporter
from mtrain.config import FitConfig
from mtrain.disk.documents import read_document, write_document
from mtrain.model import network
from mtrain.model.weight_files.weights import save_weights
from mtrain.runs.run_folder import Run
from mtrain.train.fit import fit
from tests.documents import PROGRAMS, ROOT, Line, programs_in
from tests.small_networks import use_small_networks
from tests.small_programs import SOURCES, TRAINING, call, draw_figures_once

use_small_networks()
draw_figures_once()
QUIET = Reporter(quiet=True)
SWEEP = """
leave_out = ["Lung", "UMCMColorectal"]
seeds = [0]
[grid]
backbone = ["shufflenet_v2_x0_5"]
lr = [1e-2]
warmup = [false]
[fit]
weights = "random"
iterations = 2
warmup = 1
batch = 4
size = 64
adapt_batches = 1
workers = 0
device = "cpu"
"""
TISSUE, GLASS = (200, 120, 160), (244, 244, 244)
JOB = """#!/bin/sh
grep -q '^#SBATCH --array=1-' "$1" && SLURM_ARRAY_TASK_ID=1 SLURM_ARRAY_JOB_ID=1 exec sh "$1"
"""


def build(here: Path) -> None:
    """Everything that a page may name, in a folder."""
    for name in SOURCES:
        fakes.draw_fake(catalog.find(name), here / "sources")
        known = with_defaults(catalog.find(name))
        free = known.model_copy(update={"licence": known.licence.model_copy(update={"open": True})})
        source, few = here / "sources" / name, Options(limit=3)
        convert(free, source, here / "shards", few, workers=1, overwrite=False, report=QUIET)
    settings = TRAINING | {"backbone": "resnet18", "weights": "random", "adapt_batches": 1}
    run = Run(here / "runs" / "my-run")
    fit(FitConfig(shards=str(here / "shards"), **settings), run, QUIET)
    shutil.rmtree(run.checkpoints)
    shutil.copytree(run.path, here / "runs" / "RUN")
    shutil.rmtree(here / "shards" / "Camelyon16")  # pages convert it
    for name in ("paper", "real-small"):
        (here / name).write_text(SWEEP)
    torch.manual_seed(0)
    save_weights(network.shared_network("densenet121", "random").body, here / "my-weights.safetensors", "densenet121")
    networks = {who: network.shared_network("resnet18", "random").body.state_dict() for who in ("student", "teacher")}
    torch.save(networks, here / "dino.pth")
    _images(here)


def _images(here: Path) -> None:
    """Slides with tissue and annotations of QuPath's, a slide to ask about, crops."""
    tumour = {"type": "Polygon", "coordinates": [[[600, 600], [1900, 600], [1900, 1900], [600, 1900], [600, 600]]]}
    feature = {"type": "Feature", "geometry": tumour, "properties": {"classification": {"name": "Tumor"}}}
    pixels = np.full((2048, 3072, 3), GLASS, np.uint8)
    pixels[256:1920, 256:2816] = np.random.default_rng(0).integers(-20, 20, (1664, 2560, 1)) + np.array(TISSUE)
    (here / "slides").mkdir()
    for patient in range(7, 13):
        path = here / "slides" / f"P{patient}-1.svs"
        tifffile.imwrite(
            path,
            pixels,
            photometric="rgb",
            tile=(256, 256),
            compression="jpeg",
            resolution=(40000, 40000),
            resolutionunit="CENTIMETER",
        )
        path.with_suffix(".geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    shutil.copy(here / "slides" / "P7-1.svs", here / "slide.svs")
    (here / "crops").mkdir()
    for number in range(2):
        Image.fromarray(pixels[300:500, 300:500]).save(here / "crops" / f"{number}.png")


def readdress(world: Path, before: Path, now: Path) -> None:
    """Say in the runs of a world that it lies elsewhere now."""
    for path in world.glob("runs/*/config.json"):
        content = json.loads(json.dumps(read_document(path, "")).replace(str(before), str(now)))
        path.unlink()
        write_document(path, content)


def moved(world: Path, here: Path) -> None:
    """The world again, in another folder; all but sources are links to the same bytes, which nothing writes into.

    A further link changes the time of a file's state: a conversion that another test runs on it would be refused.
    """

    def again(file: str, to: str) -> None:
        (shutil.copy2 if "sources" in Path(file).relative_to(world).parts else os.link)(file, to)

    shutil.copytree(world, here, copy_function=again, dirs_exist_ok=True)
    readdress(here, world, here)


@dataclass
class Reader:
    """Somebody who types the lines of a page into a terminal in the current folder.

    words: what stands for what in them; upload: puts a folder under a prefix of the bucket, for `aws s3 sync`.
    """

    words: dict[str, str] = field(default_factory=dict)
    upload: Callable[[Path, str], None] | None = None

    def types(self, line: Line) -> None:
        """Run it, and hold its exit status against the page's."""
        words = [self._said(word) for word in without_torchrun(line.words)]
        started = list(programs_in(line._replace(text=shlex.join(words))))
        if words[:2] == ["pip", "install"]:
            check_extras(words[2])
        elif words[:3] == ["aws", "s3", "sync"]:
            self._sync(*words[3:])
        elif words[0] == "export":
            os.environ.update(dict(word.split("=", 1) for word in words[1:]))
        elif started and words[0] in PROGRAMS:
            (of_ours,) = started
            status = call(*of_ours)
            assert status == line.status or (words[1] == "audit" and status == 1), line.text
        else:
            assert words[0] == "sbatch", f"not known here: {line.text}"
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=250)
            assert done.returncode == line.status, f"{line.text}: {done.stdout}{done.stderr}"

    def _said(self, word: str) -> str:
        for old, new in self.words.items():
            word = word.replace(old, new)
        return word

    def _sync(self, folder: str, url: str, *options: str) -> None:
        assert self.upload is not None
        left_out = [pattern for flag, pattern in pairwise(options) if flag == "--exclude"]
        with TemporaryDirectory() as temporary:
            chosen = Path(temporary)
            for path in Path(folder).rglob("*"):
                name = path.relative_to(folder)
                if path.is_file() and not any(fnmatch.fnmatch(str(name), pattern) for pattern in left_out):
                    (chosen / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, chosen / name)
            self.upload(chosen, url.removeprefix("s3://").partition("/")[2])


def check_extras(requirement: str) -> None:
    """The extras that one is told to install exist."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = re.fullmatch(rf"{project['name']}\[([\w,]+)\]", requirement)
    assert found, requirement
    assert set(found[1].split(",")) <= project["optional-dependencies"].keys(), requirement


def slurm(folder: Path) -> None:
    """`sbatch`, `srun` and `scontrol` in a folder: the first job of an array, here."""
    folder.mkdir()
    for name, text in (("sbatch", JOB), ("srun", '#!/bin/sh\nexec "$@"\n'), ("scontrol", "#!/bin/sh\nexit 1\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


def without_torchrun(words: list[str]) -> list[str]:
    """The program that torchrun would start, in one process; tests/mtrain/test_distributed.py starts several."""
    return words[words.index("mtrain") :] if words[0] == "torchrun" else words
