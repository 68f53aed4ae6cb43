"""This machine in, what works and what does not out: one `Check` a line, each with what to do about it."""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import features

from dpconvert import __version__
from dpconvert.errors import UserError
from dpconvert.image import open_image, openslide_version
from dpconvert.runtime import locks
from dpconvert.runtime.checks import Check
from dpconvert.runtime.processes import processors

ROOM = 10 << 30  # bytes; shards of one source may take more
PROBE = 64 << 20  # bytes written to learn how fast the disk is
SLOW = 20e6  # bytes/s
SECONDS = 60


def checks(folder: Path) -> Iterator[Check]:
    """All that a conversion needs of this machine; `folder` is where shards are to go."""
    yield Check("versions", ok=True, found=f"dpconvert {__version__}, Python {platform.python_version()}, {_system()}")
    yield attempt("OpenSlide", _openslide, "pip install --force-reinstall openslide-bin openslide-python")
    yield attempt("codecs", _codecs, "pip install --force-reinstall imagecodecs pillow")
    yield attempt("disk", lambda: _disk(folder), "make room, or give another --out")
    yield attempt("locks", lambda: _locks(folder), "give an --out on a local disk that keeps locks")
    yield attempt("processes", _processes, "use --workers 1; a container may forbid processes or shared memory")


def attempt(name: str, look: Callable[[], str], remedy: str) -> Check:
    """What looking gives, or the failure in one line."""
    try:
        return Check(name, ok=True, found=look())
    except (UserError, OSError, RuntimeError, ValueError, ImportError, multiprocessing.ProcessError) as error:
        text = (error.strerror if isinstance(error, OSError) else None) or str(error).strip()
        reason = text.partition("\n")[0] or type(error).__name__
        return Check(name, ok=False, found=reason, remedy=remedy)


def _system() -> str:
    return f"{platform.system()} {platform.release()} {platform.machine()}, {processors()} processors"


def _openslide() -> str:
    """A tiled TIFF of ours, read back."""
    import tifffile

    pixels = np.full((512, 512, 3), 100, np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.tif"
        tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256))
        with open_image([path]) as image:
            if not (image.read(200, 200, 100, 100) == 100).all():
                raise ValueError("the pixels read differ from those written")
    return openslide_version()


def _codecs() -> str:
    pixels = np.full((64, 64, 3), 100, np.uint8)
    for encode, decode in (
        (imagecodecs.jpeg8_encode, imagecodecs.jpeg8_decode),
        (imagecodecs.png_encode, imagecodecs.png_decode),
        (imagecodecs.jpeg2k_encode, imagecodecs.jpeg2k_decode),
    ):
        if np.abs(decode(encode(pixels)).astype(int) - 100).max() > 2:
            raise ValueError(f"{decode.__name__} gives other pixels back")
    missing = [name for name in ("jpg", "zlib", "libtiff") if not features.check(name)]
    if missing:
        raise ValueError(f"Pillow lacks {', '.join(missing)}")
    return f"JPEG {features.version('jpg')}, JPEG 2000, PNG"


def _disk(folder: Path) -> str:
    """Room and writing speed where shards are to go."""
    with tempfile.TemporaryDirectory(dir=_existing(folder), prefix=".doctor-") as place:
        free = shutil.disk_usage(place).free
        if free < ROOM:
            raise OSError(f"{free / 1e9:.1f} GB free")
        block = os.urandom(1 << 20)
        begun = time.monotonic()
        with (Path(place) / "probe").open("wb") as file:
            for _ in range(PROBE // len(block)):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        speed = PROBE / max(time.monotonic() - begun, 1e-9)
    if speed < SLOW:
        raise OSError(f"{speed / 1e6:.0f} MB/s: slow")
    return f"{free / 1e9:.0f} GB free, {speed / 1e6:.0f} MB/s"


def _locks(folder: Path) -> str:
    """A lock that one process holds must keep another out."""
    with tempfile.TemporaryDirectory(dir=_existing(folder), prefix=".doctor-") as place:
        path = Path(place) / "lock"
        with locks.held(path), _pool() as pool:
            if not pool.apply_async(locks.is_held, (path,)).get(SECONDS):
                raise OSError("two processes got the same lock")
    return "kept between processes"


def _processes() -> str:
    with _pool() as pool:
        other = pool.apply_async(os.getpid).get(SECONDS)
    if other == os.getpid():
        raise RuntimeError("the pool started no process")
    return "start by spawn"


def _pool() -> multiprocessing.pool.Pool:
    return multiprocessing.get_context("spawn").Pool(1)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that there is."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())
