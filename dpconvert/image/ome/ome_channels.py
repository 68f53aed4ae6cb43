"""Identify the red, green and blue channels of OME-XML and OME-Zarr by their names or colours.

https://www.openmicroscopy.org/Schemas/Documentation/Generated/OME-2016-06/ome_xsd.html#Channel: `Color` is a signed
32-bit integer of red, green, blue and opacity, a byte each, and -1 (white) by default.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

WORDS = {"r": 0, "red": 0, "g": 1, "green": 1, "b": 2, "blue": 2}
COLOURS = {0xFF0000: 0, 0x00FF00: 1, 0x0000FF: 2}
OPACITY = ("a", "alpha", "opacity")
NUMBERED = re.compile(r"(?i)\s*(c|ch|chan|channel)?[\s:_#-]*\d*([:_-]\d+)*\s*")  # names that state no colour


class ChannelError(ValueError):
    """The three channels are not red, green and blue; the message lists their names."""


def colour_order(pixels: Any) -> tuple[int, int, int]:
    """Return the indices of red, green and blue among the three channels of a `Pixels` element; (0, 1, 2) by default.

    Raises:
        ChannelError: the names or colours are not red, green and blue.
    """
    channels = [element for element in pixels if str(element.tag).rpartition("}")[2] == "Channel"]
    return order_of([channel.get("Name", "") for channel in channels], [_rgb(c.get("Color")) for c in channels])


def order_of(names: Sequence[str], colours: Sequence[int]) -> tuple[int, int, int]:
    """Return the indices of red, green and blue among three channels, by their names, else by their colours (0xRRGGBB).

    Names that are numbers or empty state no colour. The order is (0, 1, 2) if nothing else is stated. Other names are
    those of stains, whose colours are chosen for display.

    Raises:
        ChannelError: the names or colours are not red, green and blue.
    """
    if len(names) != 3:
        return 0, 1, 2
    by_name = [WORDS.get(name.strip().lower()) for name in names]
    if set(by_name) == {0, 1, 2}:
        return by_name.index(0), by_name.index(1), by_name.index(2)
    if not all(NUMBERED.fullmatch(name) for name in names):
        raise ChannelError(", ".join(names))
    by_colour = [COLOURS.get(colour) for colour in colours]
    if set(by_colour) == {0, 1, 2}:
        return by_colour.index(0), by_colour.index(1), by_colour.index(2)
    return 0, 1, 2


def is_opacity(name: str) -> bool:
    """Whether the name of a fourth channel says that it is the opacity of the colours."""
    return name.strip().lower() in OPACITY


def _rgb(colour: str | None) -> int:
    try:
        return int(colour or "-1") >> 8 & 0xFFFFFF
    except ValueError:
        return 0xFFFFFF
