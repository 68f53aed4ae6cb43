"""Identify the red, green and blue channels of OME-XML by their names or colours.

https://www.openmicroscopy.org/Schemas/Documentation/Generated/OME-2016-06/ome_xsd.html#Channel: `Color` is a signed
32-bit integer of red, green, blue and opacity, a byte each, and -1 (white) by default.
"""

from __future__ import annotations

import re
from typing import Any

WORDS = {"r": 0, "red": 0, "g": 1, "green": 1, "b": 2, "blue": 2}
COLOURS = {0xFF0000: 0, 0x00FF00: 1, 0x0000FF: 2}
NUMBERED = re.compile(r"(?i)\s*(c|ch|chan|channel)?[\s:_#-]*\d*([:_-]\d+)*\s*")  # names that state no colour


class ChannelError(ValueError):
    """The three channels are not red, green and blue; the message lists their names."""


def colour_order(pixels: Any) -> tuple[int, int, int]:
    """Return the indices of red, green and blue among the three channels of a `Pixels` element; (0, 1, 2) by default.

    Raises:
        ChannelError: the names or colours are not red, green and blue.
    """
    channels = [element for element in pixels if str(element.tag).rpartition("}")[2] == "Channel"]
    names = [channel.get("Name", "") for channel in channels]
    if len(channels) != 3:
        return 0, 1, 2
    by_name = [WORDS.get(name.strip().lower()) for name in names]
    by_colour = [COLOURS.get(_rgb(channel.get("Color"))) for channel in channels]
    for found in (by_name, by_colour):
        if set(found) == {0, 1, 2}:
            return found.index(0), found.index(1), found.index(2)
    if all(NUMBERED.fullmatch(name) for name in names):
        return 0, 1, 2
    raise ChannelError(", ".join(names))


def _rgb(colour: str | None) -> int:
    try:
        return int(colour or "-1") >> 8 & 0xFFFFFF
    except ValueError:
        return 0xFFFFFF
