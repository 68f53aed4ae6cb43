"""Which mask belongs to which image: by what both are called, and by their folders where names repeat."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from dpconvert.readers.draft.tree import Tree

Key = tuple[str, ...]


@dataclass(frozen=True)
class NamePlace:
    """Where paths tell images of one name apart: the folders before the level `at`, and those after it.

    masks, images: whether that level is a folder of masks alone, or of images alone, which says nothing else.
    """

    at: int
    masks: bool
    images: bool

    @classmethod
    def of(cls, pairs: Mapping[str, str], masks: Mapping[str, str], images: Mapping[str, str]) -> NamePlace | None:
        """Where paths tell these images apart; None where all have names of their own.

        masks, images: as `paired` takes them; images without masks, too.
        """
        if len({called.casefold() for called in images.values()}) == len(images):
            return None
        return next((place for place in _places(masks) if _by_key(masks, images, place) == dict(pairs)), None)

    def of_masks(self, tree: Tree, file: str) -> str:
        """The pattern of masks."""
        return self._pattern(tree, {}, file, self.at + self.masks)

    def of_images(self, tree: Tree, roles: Mapping[int, str], file: str) -> str:
        """The pattern of images."""
        return self._pattern(tree, roles, file, self.at + self.images)

    def _pattern(self, tree: Tree, roles: Mapping[int, str], file: str, after: int) -> str:
        """Folders on one side of the level are the group `folder`; those after it part of `name` where both sides are.

        Either way, an image and its mask have the same groups.
        """
        if tree.ragged or 0 < self.at < after < len(tree.levels) or 0 < self.at == after < len(tree.levels):
            return tree.pattern(roles, file, named=after, apart=slice(self.at))
        return tree.pattern(roles, file, apart=slice(after, None) if self.at == 0 else slice(self.at))


def paired(masks: Mapping[str, str], images: Mapping[str, str]) -> dict[str, str]:
    """Mask -> image, for half of the masks and more; nothing where fewer have one.

    masks, images: file -> what it is called, without what tells that it is a mask or an image.
    """
    best = _by_key(masks, images, None)
    for place in _places(masks):
        found = _by_key(masks, images, place)
        best = found if len(found) > len(best) else best
    return best if len(best) * 2 >= len(masks) else {}


def _places(masks: Iterable[str]) -> Iterator[NamePlace]:
    """The same folders, and folders that differ in one level, or that masks or images alone have."""
    depth = min((name.count("/") for name in masks), default=0)
    yield NamePlace(0, masks=False, images=False)
    for at in range(depth):
        yield NamePlace(at, masks=True, images=True)
    for at in range(depth + 1):
        yield NamePlace(at, masks=True, images=False)
        yield NamePlace(at, masks=False, images=True)


def _by_key(masks: Mapping[str, str], images: Mapping[str, str], place: NamePlace | None) -> dict[str, str]:
    by_key: defaultdict[Key, list[str]] = defaultdict(list)
    for name, called in images.items():
        by_key[_key(name, called, place, own=place is not None and place.images)].append(name)
    found = {}
    for mask, called in masks.items():
        key = _key(mask, called, place, own=place is not None and place.masks)
        if len(by_key.get(key, ())) == 1:
            found[mask] = by_key[key][0]
    return found


def _key(name: str, called: str, place: NamePlace | None, *, own: bool) -> Key:
    """What a file and its partner have in common; own: whether one level of folders is the file's alone."""
    if place is None:
        return (called.casefold(),)
    folders = PurePosixPath(name.casefold()).parts[:-1]
    return (*folders[: place.at], *folders[place.at + own :], called.casefold())
