"""The programs that compare.py compares, and bounds: each makes patches or tiles of a slide, and returns how many."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

SIDE, TILE, PATCH, QUALITY = 12_288, 512, 256, 90
MPP = 0.5
MANIFEST = f"""
task = "Benchmark"
shape = "slides"
classes = ["a"]
[files.slides]
pattern = '(?P<class>a)/(?P<name>[a-z0-9]+)\\.tif$'
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


def bound(slide: Path, out: Path, size: int, workers: int) -> int:
    """Each stored tile decoded once, each patch encoded once."""
    if workers == 1:
        return sum(_decode_and_encode(path) for path in sorted(slide.parent.glob("*.tif")))
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        return sum(pool.imap_unordered(_decode_and_encode, sorted(slide.parent.glob("*.tif"))))


def _decode_and_encode(slide: Path) -> int:
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


def copied(slide: Path, out: Path, size: int, workers: int) -> int:
    """Each tile read, digested alone and as a part of the file that is written, and written to the disk."""
    import tifffile

    with tifffile.TiffFile(slide) as tiff:
        places = list(zip(tiff.pages.first.dataoffsets, tiff.pages.first.databytecounts, strict=True))
    whole = hashlib.sha256()
    with slide.open("rb") as stored, (out / "tiles").open("wb") as file:
        for offset, count in places:
            stored.seek(offset)
            data = stored.read(count)
            hashlib.sha256(data).hexdigest()
            whole.update(data)
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return len(places)


def plain(slide: Path, out: Path, size: int, workers: int) -> int:
    """OpenSlide patch by patch, Pillow into files."""
    import openslide

    made = 0
    with openslide.OpenSlide(slide) as opened:
        for y in range(0, opened.dimensions[1], size):
            for x in range(0, opened.dimensions[0], size):
                patch = opened.read_region((x, y), 0, (size, size)).convert("RGB")
                patch.save(out / f"{x}_{y}.jpg", quality=QUALITY, subsampling=0)
                made += 1
    return made


def tiatoolbox(slide: Path, out: Path, size: int, workers: int) -> int:
    """Its sliding window, Pillow into files."""
    from PIL import Image
    from tiatoolbox.tools.patchextraction import get_patch_extractor
    from tiatoolbox.wsicore.wsireader import WSIReader

    extractor = get_patch_extractor(
        method_name="slidingwindow",
        input_img=WSIReader.open(slide),
        patch_size=(size, size),
        stride=(size, size),
        resolution=0,
        units="level",
        within_bound=True,
    )
    made = 0
    for made, patch in enumerate(extractor, start=1):
        Image.fromarray(patch[..., :3]).save(out / f"{made}.jpg", quality=QUALITY, subsampling=0)
    return made


def hs2p(slide: Path, out: Path, size: int, workers: int) -> tuple[int, float, float]:
    """Its tar of tiles, through OpenSlide in blocks of several; finding the tissue, which it must, is not counted."""
    import hs2p as package
    from hs2p.tiling.tar import extract_tiles_to_tar

    found = package.tile_slide(
        package.SlideSpec(sample_id="a", image_path=slide),
        tiling=package.TilingConfig(
            requested_spacing_um=MPP, requested_tile_size_px=size, tolerance=0.05, overlap=0.0, backend="openslide"
        ),
        segmentation=package.SegmentationConfig(method="hsv"),
        filtering=package.FilterConfig(a_t=0, a_h=0),
    )
    begun = spent()
    _, made = extract_tiles_to_tar(found, out, jpeg_quality=QUALITY, num_workers=workers)
    seconds, processor = (now - then for now, then in zip(spent(), begun, strict=True))
    return len(made.x), seconds, processor


def ours(slide: Path, out: Path, size: int, workers: int) -> int:
    """The command line."""
    from click.testing import CliRunner

    from dpconvert.cli import group

    manifest = out / "benchmark.toml"
    manifest.write_text(MANIFEST)
    arguments = [str(manifest), "--source", str(slide.parent.parent), "--out", str(out), "--workers", str(workers)]
    arguments += ["-q", "--json", *(["--lossless-tiles"] if size == TILE else [])]
    result = CliRunner().invoke(group, arguments, catch_exceptions=False, standalone_mode=False)
    return int(json.loads(result.stdout)["splits"]["train"]["samples"])


Way = Callable[[Path, Path, int, int], int | tuple[int, float, float]]  # made, and the seconds that count
WAYS: dict[str, Way] = {
    "bound": bound,
    "bound of copying": copied,
    "OpenSlide and Pillow": plain,
    "tiatoolbox": tiatoolbox,
    "hs2p": hs2p,
    "dpconvert": ours,
}
PEERS = ("OpenSlide and Pillow", "tiatoolbox", "hs2p")


def spent() -> tuple[float, float]:
    """Seconds by the clock, and of processors in this process, its children and those that they have waited for."""
    return time.perf_counter(), sum(os.times()[:4]) + _by_running_children()


def _by_running_children() -> float:
    """Seconds of processors: the server that forks our workers ends after this process, which never waits for it."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    after_names = [Path(f"/proc/{child}/stat").read_text().rpartition(") ")[2].split() for child in children]
    return sum(int(ticks) for fields in after_names for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")
