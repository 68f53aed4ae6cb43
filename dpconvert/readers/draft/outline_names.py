"""Files of annotations whose names have more than those of their images, as P1_annotations.json beside P1.svs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from dpconvert.readers.draft import naming
from dpconvert.readers.draft.survey import stem
from dpconvert.readers.siblings import APART

ENDING = re.compile(r"(?i)\.(?P<suffix>[a-z0-9]+)(?P<packed>\.gz)?$")
MOST = 3  # different texts that names have beyond those of images
MOST_LABELS = 20  # the same, if an image has several such files
LABELLED = re.compile(r"(?P<between>[-._ ]+)(?P<label>[^-._ ].*)")


@dataclass(frozen=True)
class OutlineNames:
    """The images that files of annotations are called after, and a pattern of the files.

    labels: what names of files say, if an image has several.
    """

    images: frozenset[str]
    pattern: str
    labels: tuple[str, ...] = ()


def paired(files: Sequence[str], images: Sequence[str]) -> OutlineNames | None:
    """Pair files with images whose names theirs begin with; None where their names are equal, or few files pair."""
    known = {stem(image).casefold(): image for image in images}
    known |= {PurePosixPath(image).name.casefold(): image for image in images}
    found = {file: pair for file in files if (pair := _pair(file, known)) is not None}
    beyond = sorted({rest for _, rest in found.values()})
    parts = _parts(list(found.values()), beyond)
    most = MOST_LABELS if parts else MOST
    if not any(beyond) or len(beyond) > most or len(found) * 2 < len(files):
        return None
    suffixes = sorted({ending["suffix"].lower() for file in found if (ending := ENDING.search(file))})
    packed = r"(?:\.gz)?" if any(file.lower().endswith(".gz") for file in found) else ""
    rests = "|".join(map(naming.escaped, beyond))
    labels = tuple(sorted({part["label"] for part in parts}))
    inner = rests if len(beyond) == 1 else f"(?:{rests})"
    if parts:
        inner = f"{_any_of({part['between'] for part in parts})}(?P<label>{'|'.join(map(naming.escaped, labels))})"
    pattern = rf"(?:^|/)(?P<name>[^/]+?){inner}\.(?i:{'|'.join(suffixes)}){packed}$"
    return OutlineNames(frozenset(image for image, _ in found.values()), pattern, labels)


def _parts(pairs: Sequence[tuple[str, str]], beyond: Sequence[str]) -> list[re.Match[str]]:
    """Return the texts divided before their label, if an image has a file per label; else none."""
    parts = [part for rest in beyond if (part := LABELLED.fullmatch(rest))]
    several = len({image for image, _ in pairs}) < len(pairs) == len({*pairs})
    return parts if several and len(parts) == len(beyond) else []


def _any_of(texts: set[str]) -> str:
    pattern = "|".join(map(naming.escaped, sorted(texts)))
    return pattern if len(texts) == 1 else f"(?:{pattern})"


def _pair(file: str, known: dict[str, str]) -> tuple[str, str] | None:
    """The image that a file is called after, and what its name has beyond the image's without ending."""
    base = ENDING.sub("", PurePosixPath(file).name)
    for called in _beginnings(base):
        image = known.get(called.casefold())
        if image is not None:
            rest = base[len(stem(image)) :]
            return (image, rest) if not re.search(r"\d", rest) or rest == PurePosixPath(image).suffix else None
    return None


def _beginnings(base: str) -> Iterator[str]:
    """A name, and what is left of it, from the longest to the shortest."""
    yield base
    yield from (base[: mark.start()] for mark in reversed(list(APART.finditer(base))))
