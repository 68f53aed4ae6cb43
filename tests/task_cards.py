"""Cards of tasks that tests make by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpconvert import card as cards


def write_card(
    folder: Path,
    shards: Sequence[cards.ShardCard],
    index: cards.FileCard,
    splits: Mapping[Any, cards.SplitCard],
    **stated: Any,
) -> Path:
    """Finish the task in a folder: `stated` is what its card says besides its files, or instead of two classes without
    any description.
    """
    name = stated.get("task", "Toy")
    plain: dict[str, Any] = {
        **dict.fromkeys(("title", "organ", "stain", "citation", "request", "plan"), ""),
        "task": name,
        "source": name.lower(),
        "kind": "classification",
        "classes": ["no", "yes"],
        "metric": "roc_auc",
        "split_policy": "strict",
        "group_kind": "image",
        "licence": cards.Licence(name="CC0"),
    }
    files = {"shards": list(shards), "index": index, "splits": dict(splits)}
    card = cards.TaskCard(**plain | files | stated, digest=cards.dataset_digest(list(shards)))
    (folder / cards.FILE_NAME).write_bytes(cards.dump(card))
    return folder
