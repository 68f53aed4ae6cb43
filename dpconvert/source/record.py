"""What flows through a conversion: `Image` out of a source, `Record` out of a rule, one `Record` a sample."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from dpconvert.card import Split


class Box(NamedTuple):
    """A rectangle in level-0 pixels of its image: left, top, width, height; y goes down."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image of a source with what is known of it: a file, or a row-major mosaic of files in `columns` columns.

    name: unique within the task; sample keys begin with it.
    group: patient, slide or image, as the manifest's group says; without namespace.
    label: class name of the whole image, where it has one.
    split: the release's own split, where it has one.
    annotations: names of the files that hold its annotations; `extra` is for the source's own use.
    attributes: what else is known of it; every sample carries it (magnification, official fold, ...). `mpp` goes
        before the manifest's, for sources of several resolutions; `scan` is what a split policy may draw by.
    """

    name: str
    files: tuple[str, ...]
    group: str
    label: str | None = None
    split: Split | None = None
    columns: int = 1
    annotations: tuple[str, ...] = ()
    extra: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """A sample before it is written: where its pixels are and what it is.

    box: the part of the image, None for all of it. stored: (width, height) after resampling, None for as read.
    suffix: what tells samples of one image apart in their keys; made of `box` where it is empty.
    """

    source_image: SourceImage
    label: str
    box: Box | None = None
    stored: tuple[int, int] | None = None
    suffix: str = ""


def draw(bound: int, *address: str | int) -> int:
    """An integer in [0, bound) that depends on nothing but `address`: the same on every machine, in any order.

    The bias is below bound / 2**64.
    """
    return hashed(*address) * bound >> 64


def hashed(*address: str | int) -> int:
    """A 64-bit number that depends on nothing but `address`; sorting by it shuffles the same way everywhere."""
    text = "\0".join(map(str, address)).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
