"""Two small sources whose images do not have one class: any number of classes, and a number; and their conversion."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from PIL import Image

from dpconvert.cli import group as dpconvert

MANY = """
task = "Many"
kind = "multilabel"
classes = ["red", "green"]
shape = "table"
[layout]
file = "{file}"
indicators = ["red", "green"]
group = "patient"
[split.strict]
share = [0.6, 0.4, 0]
"""
CELLS = """
task = "Cells"
kind = "regression"
unit = "cells"
shape = "table"
[layout]
file = "{file}"
value = "count"
group = "patient"
missing = true
[split.strict]
share = [0.6, 0.4, 0]
"""


def draw(folder: Path, images: int = 40) -> Path:
    """Images whose red grows with a number, and that are green or not; with labels.csv. The third has no number."""
    folder.mkdir(parents=True)
    rng, rows = np.random.default_rng(0), list[list[object]]()
    for number in range(images):
        count, green = number % 8, (number // 2) % 2
        pixels = rng.integers(0, 60, (24, 24, 3))
        pixels[..., 0] += 20 * count
        pixels[:12, :, 1] += 120 * green
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02}.png")
        text = "" if number == 2 else f"{count / 2:.1f}"
        rows.append([f"{number:02}.png", text, f"p{number // 4}", int(count > 3), green])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "count", "patient", "red", "green"], *rows])
    return folder


def converted(folder: Path, manifests: Mapping[str, str] | None = None) -> Path:
    """A folder of shards with the tasks Many and Cells, in `folder`/shards."""
    source = folder / "source" if (folder / "source").is_dir() else draw(folder / "source")
    for name, text in (manifests or {"many": MANY, "cells": CELLS}).items():
        (folder / f"{name}.toml").write_text(text)
        arguments = [str(folder / f"{name}.toml"), "--source", str(source), "--out", str(folder / "shards")]
        result = CliRunner().invoke(dpconvert, [*arguments, "--workers", "1", "-q"], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    return folder / "shards"
