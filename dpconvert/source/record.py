"""The data of a conversion: `SourceImage` from a reader of a source, and `Record`, one per sample, from a rule."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from dpconvert.card import Split

FRAME = re.compile(r"#xywh=(\d+),(\d+),(\d+),(\d+)$")


class Box(NamedTuple):
    """A rectangle in level-0 pixels of its image: left, top, width, height; y points down."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image of a source with its facts: a file, or a row-major mosaic of files in `columns` columns.

    name: unique within the task; sample keys begin with it.
    group: id of the patient, slide or image that must stay together, without namespace; see `kind_of_groups`.
    label: class name of the whole image, if it has one.
    split: the release's own split, if it has one.
    annotations: names of the files that hold its annotations; `extra` is for the source's own use.
    attributes: further facts, stored with every sample (magnification, official fold, ...). `mpp` takes precedence over
        the manifest's, for sources of several resolutions; a split policy may draw by `scan`.
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


def kind_of_groups(images: Collection[SourceImage]) -> str:
    """Return what the groups of these images are if no manifest says it: `image` if each is its own, else `group`."""
    alone = all(image.group in (image.name, *image.files) for image in images)
    return "image" if alone and len({image.group for image in images}) == len(images) else "group"


@dataclass(frozen=True, slots=True)
class Record:
    """A sample before it is written: the location of its pixels, and its class.

    box: the part of the image, None for the whole. stored: (width, height) after resampling, None for no resampling.
    suffix: distinguishes the keys of samples of one image; made from `box` if it is empty.
    """

    source_image: SourceImage
    label: str
    box: Box | None = None
    stored: tuple[int, int] | None = None
    suffix: str = ""


def sample_name(image: str, box: Box | None) -> str:
    """Return the name of a sample in lists for people: its image, and its frame if it has one.

    A frame is written as in the addresses of parts of images (W3C Media Fragments): `slide_01#xywh=512,0,256,256`.
    """
    return image if box is None else f"{image}#xywh={','.join(map(str, box))}"


def read_sample_name(name: str) -> tuple[str, Box | None]:
    """Return the image and the frame that `sample_name` joined; None for a whole image."""
    frame = FRAME.search(name)
    return (name, None) if frame is None else (name[: frame.start()], Box(*map(int, frame.groups())))


def draw(bound: int, *address: str | int) -> int:
    """Return an integer in [0, bound) that depends only on `address`: the same on every machine, in any order.

    The bias is below bound / 2**64.
    """
    return hashed(*address) * bound >> 64


def hashed(*address: str | int) -> int:
    """Return a 64-bit number that depends only on `address`; sorting by it shuffles the same way everywhere."""
    text = "\0".join(map(str, address)).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
