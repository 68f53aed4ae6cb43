"""The images of a folder by their levels of folders: which of them may be the class, the set, the patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dpconvert.readers.draft import naming
from dpconvert.readers.draft.naming import FolderLevel
from dpconvert.source import unused

MOST_LISTED = 20  # values of a level that a pattern spells out
STRAY = 0.02  # share of images that may lie outside the folders of the rest


@dataclass(frozen=True)
class Tree:
    """Images by their folders: those at least `depth` folders deep, and the levels that all of them have.

    strays: the rest, which no pattern shall match. ragged: whether some lie deeper.
    """

    images: tuple[str, ...]
    levels: tuple[FolderLevel, ...]
    strays: tuple[str, ...]
    ragged: bool

    @classmethod
    def of(cls, images: Iterable[str]) -> Tree:
        """Build the tree without the few images in shallower folders than the rest."""
        parts = {name: name.split("/")[:-1] for name in images}
        depths = sorted(len(folders) for folders in parts.values())
        depth = depths[int(len(depths) * STRAY)] if depths else 0
        kept = tuple(name for name, folders in parts.items() if len(folders) >= depth)
        levels = tuple(naming.level(parts[name][at] for name in kept) for at in range(depth))
        strays = tuple(name for name in parts if name not in set(kept))
        return cls(kept, levels, strays, any(len(parts[name]) > depth for name in kept))

    def at(self, role: str) -> list[int]:
        """The levels that have a role."""
        return [number for number, level in enumerate(self.levels) if level.role == role]

    def folder(self, name: str, at: int) -> str:
        return name.split("/")[at].removesuffix(self.levels[at].suffix)

    def counts(self, at: int) -> dict[str, int]:
        """The number of images of each value of a level."""
        found = Counter(self.folder(name, at) for name in self.images)
        return {value: found[value] for value in self.levels[at].values}

    def stems(self) -> list[str]:
        return [naming.stem(name) for name in self.images]

    def apart(self) -> int | None:
        """The last level from which on all names differ without their endings; None if their last parts do."""
        stems = [stem.casefold() for stem in self.stems()]
        for at in range(len(self.levels), -1, -1):
            folders = [name.casefold().rpartition("/")[0].split("/")[at:] for name in self.images]
            if len({*zip(map(tuple, folders), stems, strict=True)}) == len(stems):
                return at if at < len(self.levels) else None
        return None

    def pattern(self, roles: Mapping[int, str], file: str, named: int | None = None, apart: slice = slice(0)) -> str:
        """A regular expression of whole names, whose levels `roles` are named groups.

        named: the level from which on the name of an image goes up to the group `name` of `file`. apart: the
        levels that are in the group `folder`.
        """
        folders = [f"{_level(level, roles.get(at, ''))}/" for at, level in enumerate(self.levels)]
        if inside := "".join(folders[apart]).removesuffix("/"):
            folders[apart] = [f"(?P<folder>{inside})/", *[""] * (len(folders[apart]) - 1)]
        deeper = "(?:[^/]+/)*" if self.ragged else ""
        if named is None:
            return f"^{''.join(folders)}{deeper}{file}"
        within = f"{''.join(folders[named:])}{deeper}"
        return f"^{''.join(folders[:named])}{file.replace('(?P<name>', f'(?P<name>{within}', 1)}"

    def file(self, inner: str, *, named: bool = True) -> str:
        """The last part of a pattern: `inner` in the stem, `named` as a whole where the names differ."""
        stems = self.stems()
        if named and len(set(map(str.casefold, stems))) == len(stems):
            inner = f"(?P<name>{inner})"
        return rf"{inner}\.(?i:{'|'.join(endings(self.images))})$"


def endings(files: Iterable[str]) -> list[str]:
    """The extensions of the file names, in lower case."""
    return sorted({unused.suffix(name).removeprefix(".") for name in files} - {""})


def _level(level: FolderLevel, role: str) -> str:
    ending = naming.escaped(level.suffix)
    if level.role == "constant":
        return naming.escaped(level.values[0]) + ending
    listed = "|".join(map(naming.escaped, level.values)) if len(level.values) <= MOST_LISTED else "[^/]+"
    of_masks = all(map(naming.OF_MASKS.fullmatch, level.values))  # apart from the folders of their images
    if role in ("group", "name") or not (role or of_masks):
        listed = "[^/]+"
    elif not role and len(level.values) <= MOST_LISTED:
        listed = f"(?:{listed})"
    return f"(?P<{role}>{listed}){ending}" if role else f"{listed}{ending}"
