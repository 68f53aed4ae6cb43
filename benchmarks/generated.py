"""Shards that the benchmarks generate: smooth random pictures in two classes, JPEGs or with masks."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from dpconvert.cli import group as dpconvert

MANIFEST = """
task = "{task}"
shape = "folders"
classes = ["a", "b"]
[files.images]
pattern = '(?P<class>[ab])/(?P<name>[0-9]+)\\.jpg$'
[split.strict]
{split}
"""


def make_shards(folder: Path, tasks: int, images: int, sides: tuple[int, int] = (224, 320), split: str = "") -> Path:
    """The folder of tasks Task00, Task01, ... with as many images each, whose sides are in this range of pixels.

    split: a line of the manifest that divides the images; by default, all of them are training sets.
    """
    random = np.random.default_rng(0)
    for task in (f"Task{number:02}" for number in range(tasks)):
        for number in range(images):
            side = int(random.integers(sides[0], sides[1] + 1))
            coarse = random.normal(size=(side // 16, side // 16, 3)) * [25, 45, 20] + [205, 150, 190]
            path = folder / "pictures" / task / "ab"[number % 2] / f"{number:03}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            small = Image.fromarray(coarse.clip(0, 255).astype(np.uint8))
            small.resize((side, side), Image.Resampling.BICUBIC).save(path, quality=90)
        manifest = folder / f"{task}.toml"
        manifest.write_text(MANIFEST.format(task=task, split=split))
        source = ["--source", str(folder / "pictures" / task)]
        words = [str(manifest), *source, "--out", str(folder / "shards"), "-q", "--workers", "1"]
        with contextlib.redirect_stdout(sys.stderr):
            dpconvert.main(words, standalone_mode=False)
    return folder / "shards"


MASKED = """
task = "{task}"
shape = "masks"
classes = ["a", "b"]
[layout]
values = {{0 = "a", 255 = "b"}}
[rule]
type = "middle"
size = {side}
centre = 8
[image]
format = "jpeg"
quality = 90
[dense]
optional = true
[dense.seg]
classes = ["a", "b"]
[split.strict]
share = [1, 0, 0]
"""


def make_masked_shards(folder: Path, tasks: int, images: int, side: int = 256, *, dense: bool = True) -> Path:
    """The folder of tasks Masked00, Masked01, ... with as many JPEGs of `side` px each, with their masks if `dense`."""
    random = np.random.default_rng(1)
    for task in (f"Masked{number:02}" for number in range(tasks)):
        source = folder / "pictures" / task
        for kind in ("images", "masks"):
            (source / kind).mkdir(parents=True, exist_ok=True)
        for number in range(images):
            coarse = random.normal(size=(side // 16, side // 16, 3)) * [25, 45, 20] + [205, 150, 190]
            middle = slice(side // 32 - 1, side // 32 + 1)
            areas = coarse[..., 1] > 150
            areas[middle, middle] = number % 2
            for kind, pixels, how in (("images", coarse.clip(0, 255), "BICUBIC"), ("masks", 255 * areas, "NEAREST")):
                small = Image.fromarray(pixels.astype(np.uint8))
                small.resize((side, side), Image.Resampling[how]).save(source / kind / f"{number:03}.png")
        manifest = folder / f"{task}.toml"
        manifest.write_text(MASKED.format(task=task, side=side))
        words = [str(manifest), "--source", str(source), "--out", str(folder / "shards"), "-q", "--workers", "1"]
        with contextlib.redirect_stdout(sys.stderr):
            dpconvert.main([*words, *(["--dense"] if dense else [])], standalone_mode=False)
    return folder / "shards"
