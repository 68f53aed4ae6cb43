"""Which of several images of one name a file means that names them without folders.

A release often has a COCO file or a table for each set, and in each set images of the same names: `train/labels.json`
beside `train/1.png`, or `annotations/train.json` and `images/train/1.png`. The file means the images that share most
folders with it, from the root, and whose folders are named in its own name. Nothing is chosen where these two disagree,
or where the other images of the name belong neither to another such file nor to another set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from dpconvert.errors import SourceError
from dpconvert.names import file_name, folded
from dpconvert.readers.layout_keys import SPLIT_NAMES

WORD = re.compile(r"[^\W_]+")
YEAR = re.compile(r"(?<=[a-z])(?:19|20)\d\d$")
Words = tuple[str, ...]


class Nearby:
    """The images that one file means."""

    def __init__(self, file: str) -> None:
        self._files: Sequence[Nearby] = (self,)
        self._folders = _folders(file)
        name = _words(folded(PurePosixPath(file).stem))
        called = bool({*name} & {*SPLIT_NAMES.values()})  # as a set, whatever its folders are called
        self._phrases = [name] if called else [*map(_words, self._folders), name]
        self._chosen: list[tuple[int, int]] = []  # how near the images are that were chosen from several
        self._only: dict[str, str] = {}  # image that is the only one of a name -> the row that names it

    @classmethod
    def of(cls, files: Iterable[str]) -> dict[str, Nearby]:
        """Return what each of several files means, which name images in the same way."""
        found = {file: cls(file) for file in files}
        for one in found.values():
            one._files = tuple(found.values())
        return found

    def choose(self, images: Sequence[str]) -> list[str]:
        """Return the one of several images of one name that is meant, else all."""
        near = {image: self._nearness(image) for image in images}
        place, words = (max(each) for each in zip(*near.values(), strict=True))
        found = [image for image in images if near[image] == (place, words)]
        if len(found) != 1 or not all(
            self._belongs_elsewhere(image, found[0]) for image in images if image != found[0]
        ):
            return list(images)
        self._chosen.append((place, words))
        return found

    def of_row(self, images: Sequence[str], stated: str, where: str) -> Sequence[str]:
        """Return the image that a row of the file means among those of the name that it states, else all."""
        if len(images) > 1:
            return self.choose(images)
        if images and file_name(stated) != images[0]:
            self._only.setdefault(images[0], where)
        return images

    def check(self) -> None:
        """Check that no row means an image that lies elsewhere than those that were chosen for other rows.

        Raises:
            SourceError: one does.
        """
        for image, where in self._only.items():
            if self.is_elsewhere(image):
                raise SourceError(
                    "the only image of this name lies elsewhere than the other images of the file",
                    where=where,
                    found=image,
                    remedy="let the file name images with their folders, or add the image that is missing",
                )

    def is_elsewhere(self, image: str) -> bool:
        """Whether an image, the only one of its name, lies farther from the file than those chosen from several."""
        if not self._chosen:
            return False
        least = [min(each) for each in zip(*self._chosen, strict=True)]
        return any(own < other for own, other in zip(self._nearness(image), least, strict=True))

    def nearer(self, image: str, other: Nearby) -> bool:
        """Whether an image lies nearer to this file than to another one, which does not lie above it."""
        above = _folders(image)[: len(other._folders)] == other._folders and not any(other._nearness(image)[1:])
        return not above and self._nearness(image) > other._nearness(image)

    def _belongs_elsewhere(self, image: str, chosen: str) -> bool:
        """Whether an image belongs to another file than the chosen one, or to another set."""
        sets = [_set_of(_folders(name)) for name in (image, chosen)]
        return (all(sets) and sets[0] != sets[1]) or any(_is_nearer(file, image, chosen) for file in self._files)

    def _nearness(self, image: str) -> tuple[int, int]:
        """How many folders the image shares with the file, and how many words of its folders the file's name holds."""
        folders = _folders(image)
        place = next((n for n, (one, two) in enumerate(zip(folders, self._folders, strict=False)) if one != two), None)
        shared = min(len(folders), len(self._folders)) if place is None else place
        return shared, sum(max((_held(folder, words) for words in self._phrases), default=0) for folder in folders)


def _is_nearer(file: Nearby, image: str, other: str) -> bool:
    pairs = list(zip(file._nearness(image), file._nearness(other), strict=True))
    return all(one >= two for one, two in pairs) and any(one > two for one, two in pairs)


def _set_of(folders: tuple[str, ...]) -> str:
    """The one set that folders are called by; '' if there is none, or several."""
    sets = {word for folder in folders for word in _words(folder)} & {*SPLIT_NAMES.values()}
    return sets.pop() if len(sets) == 1 else ""


def _folders(name: str) -> tuple[str, ...]:
    return tuple(folded(name).split("/")[:-1])


def _words(text: str) -> Words:
    """Words of a name, with years apart, and sets by one name each: 'valid2017' -> ('val', '2017')."""
    found: list[str] = []
    for word in WORD.findall(text):
        year = YEAR.search(word)
        bare = word[: year.start()] if year else word
        found += [SPLIT_NAMES.get(bare, bare), *([year[0]] if year else [])]
    return tuple(found)


def _held(folder: str, words: Words) -> int:
    """How many words of a folder's name stand in a row among `words`: all of them, or all but years; else 0.

    Numbers and single letters alone do not count, as in `labels_v1` and the folder `1`, unless they are the whole name.
    """
    whole = _words(folder)
    without_years = tuple(word for word in whole if not re.fullmatch(r"(?:19|20)\d\d", word))
    for phrase in dict.fromkeys((whole, without_years)):
        distinct = phrase == words or any(len(word) > 1 and not word.isdecimal() for word in phrase)
        if phrase and distinct and any(words[at : at + len(phrase)] == phrase for at in _starts(words, phrase)):
            return len(phrase)
    return 0


def _starts(words: Words, phrase: Words) -> Iterable[int]:
    return range(len(words) - len(phrase) + 1)
