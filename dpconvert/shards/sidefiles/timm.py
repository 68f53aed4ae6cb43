"""Writes `_info.json`, from which timm's WebDataset reader takes splits, shards and their lengths."""

from __future__ import annotations

import json

from dpconvert.card import TaskCard

NAME = "_info.json"


def info(card: TaskCard) -> bytes:
    """The file's bytes."""
    splits = {}
    for split, of_split in card.splits.items():
        shards = [shard for shard in card.shards if shard.split == split]
        splits[split] = {
            "name": split,
            "num_samples": of_split.samples,
            "filenames": [shard.name for shard in shards],
            "shard_lengths": [shard.samples for shard in shards],
        }
    return (json.dumps({"splits": splits}, indent=1) + "\n").encode()
