"""Locate and read the JSON of a sample in its tar. The index does not state its position, which follows from the order
of members: image, class (one block) if the task has one for each image, mask if it has masks, JSON (docs/format.md).
"""

from __future__ import annotations

import json
import tarfile
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrain.data.batches.images import ShardFiles
from mtrain.data.rows import Rows

BLOCK = tarfile.BLOCKSIZE
FIRST = 8 * BLOCK  # bytes to read at once; most texts fit


def json_headers(rows: Rows) -> npt.NDArray[np.int64]:
    """Return the byte offset of the tar header of each sample's JSON: (n,)."""
    if rows.seg_offset is not None and rows.seg_length is not None:
        return rows.seg_offset + _padded(rows.seg_length)
    of_class = 2 * BLOCK if rows.target is None else 0  # the class: its header, and one block
    return rows.offset + _padded(rows.length) + of_class


def read_json(files: ShardFiles, shard: int, header: int) -> dict[str, Any]:
    """Return the JSON whose tar header lies at this offset of a shard.

    Raises:
        ValueError: there is no JSON object at this offset.
    """
    data = files.read(shard, header, FIRST)
    try:
        member = tarfile.TarInfo.frombuf(data[:BLOCK], "utf-8", "strict")
    except tarfile.HeaderError as error:
        raise ValueError(f"no JSON where the index places it: {error}") from None
    if not member.name.endswith(".json"):
        raise ValueError(f"no JSON where the index places it, but {member.name}")
    text = data[BLOCK:] if member.size <= len(data) - BLOCK else files.read(shard, header + BLOCK, member.size)
    content = json.loads(text[: member.size])
    if not isinstance(content, dict):
        raise ValueError("its JSON is not an object")
    return content


def _padded(length: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the length of members including their padding to whole blocks."""
    return -(-length // BLOCK) * BLOCK
