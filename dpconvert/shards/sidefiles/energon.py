"""Writes the folder `.nv-meta` and an index beside each tar, with which Megatron-Energon reads a task.

`energon prepare` can add a database, which `energon mount` and joined datasets need.
"""

from __future__ import annotations

import json
import struct
import tarfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from tarfile import BLOCKSIZE

from dpconvert.card import SPLITS, TaskCard
from dpconvert.shards.index import Entry

FOLDER = ".nv-meta"
DATASET = b"""\
sample_type:
  __module__: megatron.energon
  __class__: ImageClassificationSample
field_map:
  image: png,jpg
  label: cls
  label_name: json[label_name]
"""


CRUDE = b"""\
__module__: megatron.energon
__class__: CrudeWebdataset
"""  # several labels or a number: in the JSON, which a cooker of the user's turns into a sample


def files(folder: Path, card: TaskCard, entries: Sequence[Entry]) -> dict[str, bytes]:
    """Name -> bytes of every file.

    An index `.tar.idx` holds the start of each sample and the end of the last one as 64-bit little-endian numbers.
    """
    counts = {shard.name: shard.samples for shard in card.shards}
    parts = {split: [shard.name for shard in card.shards if shard.split == split] for split in SPLITS}
    contents = {
        f"{FOLDER}/.info.json": _json({"shard_counts": counts}),
        f"{FOLDER}/split.yaml": _json({"split_parts": parts, "exclude": []}),  # JSON is YAML
        f"{FOLDER}/dataset.yaml": DATASET if card.target == "class" else CRUDE,
    }
    of_shard: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        of_shard[entry.shard].append(entry)
    for name in counts:
        contents[f"{name}.idx"] = _index(folder / name, of_shard[name])
    return contents


def _index(tar: Path, entries: Sequence[Entry]) -> bytes:
    places = [entry.offset - BLOCKSIZE for entry in entries]  # the image is a sample's first member
    places.append(_end(tar, entries[-1]) if entries else 0)
    return struct.pack(f"<{len(places)}Q", *places)


def _end(path: Path, last: Entry) -> int:
    """The end of the last sample of a tar: its image is followed by label and mask, if the task has them, and JSON."""
    end = last.offset + _padded(last.length)
    with path.open("rb") as file:
        for _ in range(1 + (last.label >= 0) + (last.seg_offset >= 0)):
            file.seek(end)
            header = tarfile.TarInfo.frombuf(file.read(BLOCKSIZE), "ascii", "strict")
            end += BLOCKSIZE + _padded(header.size)
    return end


def _padded(size: int) -> int:
    return -(-size // BLOCKSIZE) * BLOCKSIZE


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()
