"""The folder `.nv-meta` and an index beside each tar, with which Megatron-Energon reads a task.

What `energon prepare` would add besides, a database for `energon mount` and for joined datasets, is left to it.
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
from dpconvert.shards.tar import Entry

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


def files(folder: Path, card: TaskCard, entries: Sequence[Entry]) -> dict[str, bytes]:
    """Name -> bytes of every file.

    An index `.tar.idx` holds, as 64-bit little-endian numbers, where each sample begins and where the last one ends.
    """
    counts = {shard.name: shard.samples for shard in card.shards}
    parts = {split: [shard.name for shard in card.shards if shard.split == split] for split in SPLITS}
    made = {
        f"{FOLDER}/.info.json": _json({"shard_counts": counts}),
        f"{FOLDER}/split.yaml": _json({"split_parts": parts, "exclude": []}),  # JSON is YAML
        f"{FOLDER}/dataset.yaml": DATASET,
    }
    of_shard: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        of_shard[entry.shard].append(entry)
    for name in counts:
        made[f"{name}.idx"] = _index(folder / name, of_shard[name])
    return made


def _index(tar: Path, entries: Sequence[Entry]) -> bytes:
    places = [entry.offset - BLOCKSIZE for entry in entries]  # the image is a sample's first member
    places.append(_end(tar, entries[-1]) if entries else 0)
    return struct.pack(f"<{len(places)}Q", *places)


def _end(path: Path, last: Entry) -> int:
    """Where the last sample of a tar ends: after its label and its JSON, which follow the image."""
    end = last.offset + _padded(last.length)
    with path.open("rb") as file:
        for _ in range(2):
            file.seek(end)
            header = tarfile.TarInfo.frombuf(file.read(BLOCKSIZE), "ascii", "strict")
            end += BLOCKSIZE + _padded(header.size)
    return end


def _padded(size: int) -> int:
    return -(-size // BLOCKSIZE) * BLOCKSIZE


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()
