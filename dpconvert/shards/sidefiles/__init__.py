"""Writes small files beside the shards of a finished task, with which other tools read these shards.

<Task>/_info.json            timm's WebDataset reader
<Task>/.nv-meta/, *.tar.idx  Megatron-Energon
<Task>/croissant.json        Croissant metadata of MLCommons
<Task>/README.md             a dataset card, from which Hugging Face `datasets` takes splits and features

Their bytes depend only on the card and the index. None of them is needed to read a task.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from dpconvert.card import FileCard, TaskCard
from dpconvert.runtime.atomic import replaced
from dpconvert.shards.index import Entry, file_card
from dpconvert.shards.sidefiles import croissant, energon, readme, timm

SINGLE = (timm.NAME, croissant.NAME, readme.NAME)


def write(folder: Path, card: TaskCard, entries: Sequence[Entry]) -> list[FileCard]:
    """Write the side files of a task whose shards and index exist. Returns what task.json lists as `side_files`.

    Raises:
        OutputError: a file cannot be written, for example because the disk is full.
    """
    contents = energon.files(folder, card, entries)
    contents |= {
        timm.NAME: timm.info(card),
        croissant.NAME: croissant.metadata(card),
        readme.NAME: readme.text(card, entries),
    }
    (folder / energon.FOLDER).mkdir(exist_ok=True)
    for name, data in contents.items():
        with replaced(folder / name) as file:
            file.write(data)
    return [side_card(folder, name) for name in sorted(contents)]


def side_card(folder: Path, name: str) -> FileCard:
    """Size and sha256 of the file `name`, which may lie in a subfolder of the task."""
    return file_card(folder / name).model_copy(update={"name": name})


def clear(folder: Path) -> None:
    """Remove the files of `write`, and those that Energon may have added to its own folder."""
    for path in [*(folder / name for name in SINGLE), *folder.glob("*.tar.idx")]:
        path.unlink(missing_ok=True)
    shutil.rmtree(folder / energon.FOLDER, ignore_errors=True)
