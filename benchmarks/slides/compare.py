"""Patches out of a slide, per second on one core: ours, plain OpenSlide, tiatoolbox, and the bound of the work itself.

    python benchmarks/slides/compare.py                     ours, OpenSlide and the bound
    python benchmarks/slides/compare.py --tiatoolbox PYTHON  that too, by an interpreter that has it installed

A 12 288 x 12 288 JPEG pyramid (512 px tiles) is cut into 2 304 patches of 256 px, stored as JPEG of quality 90, 4:4:4.
The bound decodes each stored tile once and encodes each patch once, and does nothing else. Ours writes shards with
labels, JSON, digests and index. Each runs in a process of its own, pinned to one core, after a turn on a small slide
that is not counted: programs differ in what they load first.
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
import time
from pathlib import Path

SIDE, TILE, PATCH, QUALITY = 12_288, 512, 256, 90
SMALL = 2_048
MANIFEST = f"""
task = "Benchmark"
shape = "slides"
classes = ["a"]
[files.slides]
pattern = '(?P<class>a)/(?P<name>[a-z]+)\\.tif$'
[layout]
missing = true
[rule]
type = "tiles"
size = {PATCH}
[image]
format = "jpeg"
quality = {QUALITY}
[split.strict]
"""


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
                np.ascontiguousarray(pixels[:: 2**level, :: 2**level]), tile=(TILE, TILE), compression="jpeg",
                compressionargs={"level": QUALITY}, photometric="rgb", subfiletype=1 if level else 0, metadata=None,
                resolution=(2e4, 2e4), resolutionunit="CENTIMETER",
            )  # fmt: skip


def bound(slide: Path, out: Path) -> int:
    """Each stored tile decoded once, each patch encoded once."""
    import imagecodecs
    import numpy as np
    import tifffile

    data, made = slide.read_bytes(), 0
    with tifffile.TiffFile(slide) as tiff:
        page = tiff.pages.first
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            tile = imagecodecs.jpeg8_decode(data[offset : offset + count], tables=page.jpegtables, outcolorspace="RGB")
            for y in range(0, TILE, PATCH):
                for x in range(0, TILE, PATCH):
                    patch = np.ascontiguousarray(tile[y : y + PATCH, x : x + PATCH])
                    imagecodecs.jpeg8_encode(patch, level=QUALITY, subsampling="444")
                    made += 1
    return made


def plain(slide: Path, out: Path) -> int:
    """OpenSlide patch by patch, Pillow into files."""
    import openslide

    made = 0
    with openslide.OpenSlide(slide) as opened:
        for y in range(0, opened.dimensions[1], PATCH):
            for x in range(0, opened.dimensions[0], PATCH):
                patch = opened.read_region((x, y), 0, (PATCH, PATCH)).convert("RGB")
                patch.save(out / f"{x}_{y}.jpg", quality=QUALITY, subsampling=0)
                made += 1
    return made


def tiatoolbox(slide: Path, out: Path) -> int:
    """Its sliding window, Pillow into files."""
    from PIL import Image
    from tiatoolbox.tools.patchextraction import get_patch_extractor
    from tiatoolbox.wsicore.wsireader import WSIReader

    extractor = get_patch_extractor(
        method_name="slidingwindow", input_img=WSIReader.open(slide), patch_size=(PATCH, PATCH),
        stride=(PATCH, PATCH), resolution=0, units="level", within_bound=True,
    )  # fmt: skip
    made = 0
    for made, patch in enumerate(extractor, start=1):
        Image.fromarray(patch[..., :3]).save(out / f"{made}.jpg", quality=QUALITY, subsampling=0)
    return made


def ours(slide: Path, out: Path, *more: str) -> int:
    """The command line, one worker."""
    from click.testing import CliRunner

    from dpconvert.cli import group

    manifest = out / "benchmark.toml"
    manifest.write_text(MANIFEST)
    asked = [str(manifest), "--source", str(slide.parent.parent), "--out", str(out), "--workers", "1", "-q", "--json"]
    result = CliRunner().invoke(group, [*asked, *more], catch_exceptions=False, standalone_mode=False)
    return int(json.loads(result.stdout)["splits"]["train"]["samples"])


WAYS = {
    "bound": bound,
    "openslide": plain,
    "tiatoolbox": tiatoolbox,
    "dpconvert": ours,
    "dpconvert --lossless-tiles": lambda slide, out: ours(slide, out, "--lossless-tiles"),
}


def one(way: str, small: Path, slide: Path) -> None:
    """Run one way in this process; a line of JSON."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as out:
        WAYS[way](small, Path(out))
    with tempfile.TemporaryDirectory() as out:
        begun = time.perf_counter()
        made = WAYS[way](slide, Path(out))
        seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(json.dumps({"made": made, "seconds": seconds, "peak": peak}) + "\n")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--tiatoolbox", metavar="PYTHON", help="an interpreter that has tiatoolbox")
    options.add_argument("--rounds", type=int, default=3, help="the fastest counts")
    options.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.one:
        one(asked.one[0], *map(Path, asked.one[1:]))
        return
    pythons = dict.fromkeys(WAYS, sys.executable) | {"tiatoolbox": asked.tiatoolbox}
    with tempfile.TemporaryDirectory() as folder:
        slides = [Path(folder) / size / "a" / "slide.tif" for size in ("small", "large")]
        for slide, side in zip(slides, (SMALL, SIDE), strict=True):  # elsewhere: a child is charged its parent's memory
            drawing = multiprocessing.get_context("spawn").Process(target=draw, args=(slide, side))
            drawing.start()
            drawing.join()
        sys.stdout.write(f"{'':28}{'patches':>9}{'a second':>10}{'of bound':>10}{'peak MiB':>10}\n")
        top = 0.0
        for way, python in pythons.items():
            if python is None:
                continue
            command = [python, __file__, "--one", way, *map(str, slides)]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            runs = [
                json.loads(
                    subprocess.run(command, check=True, capture_output=True, env=environment).stdout.splitlines()[-1]
                )
                for _ in range(asked.rounds)
            ]
            best = min(runs, key=lambda run: run["seconds"])
            rate = best["made"] / best["seconds"]
            top = top or rate
            sys.stdout.write(f"{way:28}{best['made']:>9}{rate:>10.0f}{rate / top:>10.2f}{best['peak']:>10.0f}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
