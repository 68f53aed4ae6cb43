"""The files of one sample, read from a tar by the offset of its image."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from typing import IO, Any

from dpconvert.card import TaskCard

SEG = ".seg.png"


@dataclass(frozen=True)
class SampleFiles:
    """Image and mask (None if the task keeps none) as bytes, and the content of the JSON."""

    image: bytes
    seg: bytes | None
    metadata: dict[str, Any]


def keeps_masks(card: TaskCard) -> bool:
    """Whether each sample of the task has a mask."""
    return card.dense is not None and card.dense.seg is not None


def read_sample(file: IO[bytes], offset: int, card: TaskCard) -> SampleFiles:
    """The sample whose image starts at `offset`: image, class, mask and JSON follow each other, as far as it has them.

    Raises:
        ValueError: there is no such sample.
        OSError, tarfile.TarError: the tar cannot be read.
    """
    count = 2 + (card.target == "class") + keeps_masks(card)
    file.seek(offset - tarfile.BLOCKSIZE)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        found = [(m.name, opened.read()) for _ in range(count) if (m := tar.next()) and (opened := tar.extractfile(m))]
    if len(found) != count or keeps_masks(card) != found[-2][0].endswith(SEG):
        raise ValueError(f"no sample at byte {offset}")
    metadata = json.loads(found[-1][1])
    seg = found[-2][1] if keeps_masks(card) else None
    return SampleFiles(found[0][1], seg, metadata if isinstance(metadata, dict) else {})
