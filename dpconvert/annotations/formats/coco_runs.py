"""Run-length masks of COCO: lengths that alternate between off and on down the columns, plain or compressed.

https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.h
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import numpy as np
from pydantic import Field

from dpconvert.annotations import outlines
from dpconvert.annotations.geometry import Geometry
from dpconvert.annotations.parsing.json_text import Loose
from dpconvert.errors import ReadError

Side = Annotated[int, Field(gt=0, lt=1_000_000)]


class Rle(Loose):
    size: Annotated[list[Side], Field(min_length=2, max_length=2)]
    counts: list[Annotated[int, Field(ge=0, lt=1 << 40)]] | str


def decoded(rle: Rle, remarks: Counter[str], name: str) -> Geometry | None:
    """Decode run lengths that alternate between off and on down the columns, starting with off."""
    height, width = rle.size
    lengths = _lengths(rle.counts, name) if isinstance(rle.counts, str) else rle.counts
    if sum(lengths) != height * width:
        raise ReadError("run lengths do not fill the mask", where=name, expected=height * width, found=sum(lengths))
    edges = np.concatenate([[0], np.cumsum(np.array(lengths, dtype=np.int64))])
    start, end = edges[1:-1:2], edges[2::2]
    keep = end > start
    start, end = start[keep], end[keep]
    if not len(start):
        remarks["annotation without an outline"] += 1
        return None
    return outlines.outline(outlines.by_column(start, end, height, name), columns=True)


def _lengths(text: str, name: str) -> list[int]:
    """COCO's compressed counts: five bits a character from '0' on, the sixth says that more follow; from the fourth
    count on, the difference to the one two before (the API's `rleFrString`)."""
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 40:
            raise ReadError("run lengths that cannot be read", where=name, found=repr(text[:20]))
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            if lengths[-1] < 0:
                raise ReadError("a negative run length", where=name, found=lengths[-1])
            value = shift = 0
    if shift:
        raise ReadError("truncated run lengths", where=name)
    return lengths
