"""What holds for every test."""

from __future__ import annotations

import gc
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import settings
from PIL import Image, PngImagePlugin

from dpconvert.shards import encode

# torch reads it: sums of several threads are rounded otherwise, and tests compare runs of several processes bit by bit
os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("no deadline", deadline=None)  # a machine may be busy
settings.load_profile("no deadline")

FSYNC = os.fsync
SLOW, FAST = encode.PNG_LEVEL, 1  # zlib's level: the same pixels in more bytes and a quarter of the time


def pytest_configure(config: pytest.Config) -> None:
    """Take Ctrl-C as from a terminal, write files fast, and hide GPUs from all tests but those marked `cuda`.

    Tests take the CPU for what `--device auto` finds, and fork, which a process that uses a GPU may not.

    In the background of a shell, Ctrl-C is ignored, in every process begun here too. Compression is most of what
    conversions cost. Interpreters that a test starts, and workers with them, compress as always: shards that are
    compared with theirs need `slow_png`.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not re.search(r"(?<!not )\bcuda\b", config.getoption("markexpr")):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    gc.disable()  # until the tests are collected: next to nothing of what is imported is garbage
    _use(FAST, _save)
    os.fsync = _not_synced


def pytest_collection_finish() -> None:
    """Let no collection of garbage walk again through the modules and tests of the whole suite."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Let the interpreter end as it would have."""
    gc.unfreeze()
    gc.enable()
    os.fsync = FSYNC


def _not_synced(file: int) -> None:
    """Refuse what `os.fsync` refuses, but wait for no disk: nothing that a test writes need outlive a loss of power."""
    os.fstat(file)


@contextmanager
def compressed_as_always() -> Iterator[None]:
    """PNG files have the bytes that other interpreters write."""
    before = encode.PNG_LEVEL, Image.SAVE["PNG"]
    _use(SLOW, PngImagePlugin._save)
    try:
        yield
    finally:
        _use(*before)


@pytest.fixture
def slow_png() -> Iterator[None]:
    with compressed_as_always():
        yield


def _use(level: int, save: Any) -> None:
    encode.PNG_LEVEL = level
    Image.register_save("PNG", save)


def _save(image: Image.Image, *given: Any, **options: Any) -> None:
    image.encoderinfo.setdefault("compress_level", FAST)
    PngImagePlugin._save(image, *given, **options)


@pytest.fixture(autouse=True)
def options_leave_nothing_behind() -> Iterator[None]:
    """Some options set variables of the environment, which workers inherit; so would the next test in this process."""
    before = {name: os.environ.get(name) for name in ("MTRAIN_CACHE", "MTRAIN_CACHE_SIZE")}
    os.environ.pop("MTRAIN_CHECK_IMAGES", None)  # may be left by a fixture that several tests share
    yield
    os.environ.pop("MTRAIN_CHECK_IMAGES", None)
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
