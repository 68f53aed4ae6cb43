"""The head of an Olympus slide, `a.vsi`: its images with their sizes, resolutions and axes.

slideio (extra `vsi`) reads the tree of tags, and nothing else: its version 2.10 ends the process at a damaged JPEG
tile, returns white for an uncompressed one, and passes over files of tiles that it cannot read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from dpconvert.errors import ReadError
from dpconvert.image.spacing import Spacing, of_texts

MICROMETRES = 1e6  # in a metre
UNIT = re.compile(r"(?:10\^(?P<power>-?\d{1,2}))?m(?:\^1)?")
AUXILIARY = re.compile(r"(?i)(overview|label|macro)( image)?[\W_]*\d*")  # names of images of the glass as a whole
NUMBER = re.compile(r"-?\d+(?:\.\d+)?|-?nan|-?inf")

# tags, from the root inwards; a tag means other things elsewhere
IMAGE = 2000, 2001
PROPERTIES, NAME, TYPE, SIDES, SIDES_UNIT = 2005, 2030, 2074, 2019, 2020
FILE, HAS_FILE, FRAME = (2002, 2018), 20005, 2053  # the pixels in a file of their own, and their frame
AXIS, MEANING = 2007, (2008, 2023)  # an axis after x and y, with its number as second tag, and what it means
SLIDE_IMAGE = "0"  # a type; others are overviews, macro images, masks, and maps of focus
MEANINGS = {"1": "focal plane", "2": "time point"}  # others are channels, wavelengths and phases


class HeadImage(NamedTuple):
    """An image that the head describes.

    axes: what each axis after x and y is, by number. is_auxiliary: whether it shows the glass as a whole, or no pixels.
    """

    name: str
    width: int
    height: int
    spacing: Spacing = Spacing()
    axes: Mapping[int, str] = MappingProxyType({})
    is_auxiliary: bool = False

    @property
    def pixels(self) -> int:
        """The number of pixels."""
        return self.width * self.height


def read_head(path: Path) -> list[HeadImage]:
    """Return the images whose pixels are in files of their own.

    Raises:
        ReadError: the head is damaged, or not of this format.
    """
    import slideio

    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ReadError(
            "a name that is not UTF-8, by which slideio opens no file", where=path, remedy="rename it"
        ) from None
    slideio.set_log_level("FATAL")  # it writes messages to stderr
    try:
        with slideio.open_slide(str(path), "VSI") as slide:
            tags = json.loads(slide.raw_metadata)
        return [image for item in _inside(tags, *IMAGE) if (image := _image(item)) is not None]
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, OSError):
        raise ReadError("not a readable VSI file", where=path, remedy="fetch it again") from None


def _image(item: dict[str, Any]) -> HeadImage | None:
    """Return an image; None if its pixels are not in a file of their own."""
    file = next((one for one in _inside(item, *FILE) if _value(one, HAS_FILE) == "1"), {})
    frame = [int(number) for number in NUMBER.findall(_value(file, FRAME)) if number.lstrip("-").isdecimal()]
    if len(frame) != 4:
        return None
    properties = next(_inside(item, PROPERTIES), {})
    name, kind = _value(properties, NAME), _value(properties, TYPE) or SLIDE_IMAGE
    axes = {int(axis["secondTag"]): MEANINGS.get(_value(axis, *MEANING), "channel") for axis in _inside(item, AXIS)}
    is_auxiliary = kind != SLIDE_IMAGE or bool(AUXILIARY.fullmatch(name))
    return HeadImage(name, frame[2], frame[3], _spacing(properties), axes, is_auxiliary)


def _spacing(properties: dict[str, Any]) -> Spacing:
    """Return the micrometres per pixel; none without a unit of length."""
    sides = [float(number) for number in NUMBER.findall(_value(properties, SIDES))]
    unit = UNIT.fullmatch("".join(_value(properties, SIDES_UNIT).split()))
    if unit is None or len(sides) != 2:
        return Spacing()
    factor = MICROMETRES * 10.0 ** int(unit["power"] or 0)
    return of_texts(*(f"{side * factor:.6g}" if side else None for side in sides))


def _inside(item: dict[str, Any], *tags: int) -> Iterator[dict[str, Any]]:
    """Yield the items at the end of a path of tags inside an item, in order."""
    if not tags:
        yield item
        return
    inside = item.get("value")
    for one in inside if isinstance(inside, list) else []:
        if one.get("tag") == tags[0]:
            yield from _inside(one, *tags[1:])


def _value(item: dict[str, Any], *tags: int) -> str:
    """Return the text of the first item at the end of a path of tags inside an item; "" without one."""
    found = next(_inside(item, *tags), {}).get("value", "")
    return found.strip() if isinstance(found, str) else ""
