"""Memory of a conversion, whatever the size of the slide: looked at from outside while it runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dpconvert.card import load
from tests.dpconvert.tiffs import TILE, TISSUE, shared_tiles

ROOT = Path(__file__).resolve().parents[2]
WIDTH, HEIGHT = 97_792, 221_184  # Camelyon16's largest; 330 048 patches of 256 px
MANIFEST = TISSUE.replace("Tissue", "Gigantic").replace("cap = 20", "cap = 1000")
PROGRAM, WORKER = 1024, 512  # MiB

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@pytest.mark.stress
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("factors", [(1, 4, 16, 64), (1,)], ids=["pyramid", "one level"])
def test_a_gigantic_slide_is_converted_within_a_gibibyte(factors: tuple[int, ...], tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    shared_tiles(source / "slide.tif", WIDTH, HEIGHT, stained(), factors=factors)
    (source / "slide.geojson").write_text(json.dumps(outlines()))
    (tmp_path / "gigantic.toml").write_text(MANIFEST)
    command = [sys.executable, "-m", "dpconvert.cli", str(tmp_path / "gigantic.toml"), "--source", str(source)]
    process = subprocess.Popen([*command, "--out", str(tmp_path / "out"), "--workers", "2", "--quiet"], cwd=ROOT)
    program, worker = watched(process)
    assert process.wait() == 0
    sys.stdout.write(f"program {program:.0f} MiB, largest worker {worker:.0f} MiB\n")
    card = load(tmp_path / "out" / "Gigantic")
    assert card.splits["train"].classes == [1000, 1000]
    assert all(note.startswith(("no sample in ", "tissue: ")) for note in card.notes)
    assert program <= PROGRAM
    assert worker <= WORKER


def stained() -> np.ndarray:
    """A tile that is half tissue, half glass."""
    tile = np.full((TILE, TILE, 3), 243, np.uint8)
    tile[:, : TILE // 2] = (200, 90, 160)
    return tile


def outlines() -> dict[str, object]:
    """A circle of 20 000 vertices around the middle of the upper half."""
    angle = np.linspace(0, 2 * np.pi, 20_000)
    x, y = WIDTH / 2 + 40_000 * np.cos(angle), HEIGHT / 4 + 40_000 * np.sin(angle)
    ring = [*zip(x.tolist(), y.tolist(), strict=True)]
    shape = {"type": "Polygon", "coordinates": [[*ring[:-1], ring[0]]]}
    properties = {"objectType": "annotation", "classification": {"name": "tumour"}}
    feature = {"type": "Feature", "id": "a", "geometry": shape, "properties": properties}
    return {"type": "FeatureCollection", "features": [feature]}


def watched(process: subprocess.Popen[bytes]) -> tuple[float, float]:
    """Most memory (MiB) that the program and the largest of its workers ever held."""
    most = {True: 0.0, False: 0.0}
    while process.poll() is None:
        for pid in [process.pid, *descendants(process.pid)]:
            most[pid == process.pid] = max(most[pid == process.pid], peak(pid))
        time.sleep(0.02)
    return most[True], most[False]


def descendants(pid: int) -> Iterator[int]:
    """Processes that a process has started, and those that they have: workers are forked from a server."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return
    for child in children:
        yield child
        yield from descendants(child)


def peak(pid: int) -> float:
    """MiB that a process held at most since it started its program; 0 for one that is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)
