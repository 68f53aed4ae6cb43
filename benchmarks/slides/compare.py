"""Patches out of slides, per second: ours beside its peers and beside the bound of the work itself.

    python benchmarks/slides/compare.py                                   ours, plain OpenSlide and the bounds
    python benchmarks/slides/compare.py --tiatoolbox PYTHON --hs2p PYTHON   peers too, by interpreters that have them

Three tables, all of a 12 288 x 12 288 JPEG pyramid (512 px tiles) and of JPEG of quality 90:
  patches   2 304 patches of 256 px, 4:4:4 (hs2p: 4:2:0, it has no other); one core
  tiles     its 576 tiles of 512 px: passed on as they are by ours, decoded and encoded again by the peers; one core
  workers   24 times the patches, by one and by two processes

The bound of patches decodes each stored tile once and encodes each patch once, and does nothing else; that of tiles
reads, digests and writes them. Rates are by the clock and by processor time, which other work on the machine and
waiting for the disk disturb less; comparisons are of the latter. The best of some rounds counts, in each of which
everything has its turn. Ours writes shards with labels, JSON, digests and index, flushed to the disk. Each way
runs in a process of its own after a turn on a small slide that is not counted: programs differ in what they load first.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from programs import MPP, PATCH, PEERS, QUALITY, SIDE, TILE, WAYS, spent

SMALL = 2_048
COPIES = 24


def draw(path: Path, side: int) -> None:
    """Smooth noise in the colours of a stain, on three levels."""
    import numpy as np
    import tifffile
    from PIL import Image

    random = np.random.default_rng(0)
    coarse = (random.normal(size=(side // 32, side // 32, 1)) * [25, 45, 20] + [205, 150, 190]).clip(0, 255)
    smooth = Image.fromarray(coarse.astype(np.uint8)).resize((side // 4, side // 4), Image.Resampling.BICUBIC)
    block = np.asarray(smooth).astype(np.int16) + random.normal(0, 6, (side // 4, side // 4, 1)).astype(np.int16)
    pixels = np.tile(block.clip(0, 255).astype(np.uint8), (4, 4, 1))
    path.parent.mkdir(parents=True)
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for level in range(3):
            tiff.write(
                np.ascontiguousarray(pixels[:: 2**level, :: 2**level]),
                tile=(TILE, TILE),
                compression="jpeg",
                compressionargs={"level": QUALITY},
                photometric="rgb",
                subfiletype=1 if level else 0,
                metadata=None,
                resolution=(1e4 / MPP, 1e4 / MPP),
                resolutionunit="CENTIMETER",
            )


def one(way: str, small: Path, slide: Path, size: int, workers: int) -> None:
    """Run one way in this process; a line of JSON."""
    if workers == 1:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as out:
        WAYS[way](small, Path(out), size, 1)
    with tempfile.TemporaryDirectory() as out:
        begun = spent()
        result = WAYS[way](slide, Path(out), size, workers)
        seconds, processor = (now - then for now, then in zip(spent(), begun, strict=True))
    made, seconds, processor = (result, seconds, processor) if isinstance(result, int) else result
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    run = {"made": made, "seconds": seconds, "processor": processor, "peak": peak}
    sys.stdout.write(json.dumps(run) + "\n")


def measured(python: str, way: str, slides: list[Path], size: int, workers: int) -> dict[str, float]:
    """One run in a process of its own."""
    command = [python, __file__, "--one", way, *map(str, slides), str(size), str(workers)]
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    # modules are compiled in the first round, whether or not they were when they were installed
    environment["PYTHONPYCACHEPREFIX"] = str(slides[0].parents[2] / "compiled")
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    output = subprocess.run(command, check=True, capture_output=True, env=environment).stdout
    run: dict[str, float] = json.loads(output.splitlines()[-1])
    return run


def table(title: str, rows: list[tuple[str, int]], runs: dict[tuple[str, int], list[dict[str, float]]]) -> None:
    """A line for each way; rates beside those of the bound, which comes first, and of the best peer."""
    heads = f"{'a second':>10}{'a CPU second':>14}{'of bound':>10}{'of best peer':>14}{'MiB':>8}"
    sys.stdout.write(f"\n{title:28}{'made':>8}{heads}\n")
    best = {row: {name: min(run[name] for run in runs[row]) for name in runs[row][0]} for row in rows}
    rates = {row: run["made"] / run["processor"] for row, run in best.items()}
    peer = max((rate for (way, _), rate in rates.items() if way in PEERS), default=0.0)
    for way, workers in rows:
        run, rate = best[way, workers], rates[way, workers]
        name = f"{way}, {workers} processes" if workers > 1 else way
        compared = f"{rate / rates[rows[0]]:>10.2f}" + (f"{rate / peer:>14.2f}" if peer else f"{'':14}")
        cells = f"{run['made'] / run['seconds']:>10.0f}{rate:>14.0f}{compared}{run['peak']:>8.0f}"
        sys.stdout.write(f"{name:28}{run['made']:>8}{cells}\n")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--tiatoolbox", metavar="PYTHON", help="an interpreter that has tiatoolbox")
    options.add_argument("--hs2p", metavar="PYTHON", help="an interpreter that has hs2p with openslide-python")
    options.add_argument("--rounds", type=int, default=3, help="the fastest counts")
    options.add_argument("--tables", nargs="+", default=["patches", "tiles", "workers"])
    options.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.one:
        way, small, slide, size, workers = args.one
        one(way, Path(small), Path(slide), int(size), int(workers))
        return
    pythons = dict.fromkeys(WAYS, sys.executable) | {"tiatoolbox": args.tiatoolbox, "hs2p": args.hs2p}
    pythons = {way: python for way, python in pythons.items() if python}
    with tempfile.TemporaryDirectory() as folder:
        small, slide, several = (Path(folder) / size / "a" / "slide.tif" for size in ("small", "one", "several"))
        for path, side in ((small, SMALL), (slide, SIDE)):  # elsewhere: a child is charged its parent's memory
            drawing = multiprocessing.get_context("spawn").Process(target=draw, args=(path, side))
            drawing.start()
            drawing.join()
        several.parent.mkdir(parents=True)
        for number in range(COPIES):
            os.link(slide, several.with_name(f"slide{number}.tif"))
        peers = [(way, 1) for way in PEERS]
        tables = {
            "patches": ([("bound", 1), *peers, ("dpconvert", 1)], slide, PATCH),
            "tiles": ([("bound of copying", 1), *peers, ("dpconvert", 1)], slide, TILE),
            "workers": ([("bound", 1), ("dpconvert", 1), ("bound", 2), ("dpconvert", 2)], several, PATCH),
        }
        for title in args.tables:
            rows, path, size = tables[title]
            rows = [row for row in rows if row[0] in pythons]
            runs: dict[tuple[str, int], list[dict[str, float]]] = {row: [] for row in rows}
            for way, workers in rows * args.rounds:
                runs[way, workers].append(measured(pythons[way], way, [small, path], size, workers))
            table(title, rows, runs)


if __name__ == "__main__":
    main()
