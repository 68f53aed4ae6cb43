"""Which files are masks, told by their names or by the few values that they hold."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import PurePosixPath

from dpconvert.annotations import mask_pixels
from dpconvert.errors import ReadError
from dpconvert.plural import counted
from dpconvert.readers.draft import folders, naming
from dpconvert.readers.draft.masks import pairs
from dpconvert.readers.draft.masks.mask_values import LOOKED_AT, values_of
from dpconvert.readers.draft.masks.words import FOLDER, bare, own
from dpconvert.readers.draft.survey import Survey
from dpconvert.source import unused

SAMPLED = 3  # images of a folder
FLAT = 0.9  # share of neighbouring pixels that are equal, in masks


@lru_cache(maxsize=1)
def masks_of(survey: Survey) -> dict[str, str]:
    """Mask -> image, of files that a folder, an ending or their pixels tell to be masks; empty where none pair."""
    images = [name for name in survey.images if not folders.MANY_IMAGES.search(name)]
    for found in (_by_ending(images), _by_folder(images), _by_pixels(survey), _by_flatness(survey)):
        if found:
            return found
    return {}


def in_mask_folders(images: Sequence[str]) -> set[str]:
    """Those in folders that are called as folders of masks are; folders that hold all of them say nothing."""
    folders = {name: PurePosixPath(name).parts[:-1] for name in images}
    levels = zip(*folders.values(), strict=False)
    shallowest = min(map(len, folders.values()), default=0)
    shared = next((at for at, level in enumerate(levels) if len({*level}) > 1), shallowest)
    return {name for name, parts in folders.items() if any(map(FOLDER.fullmatch, parts[shared:]))}


def _paired(masks: dict[str, str], images: Iterable[str]) -> dict[str, str]:
    """Masks by what their images are called, with or without an ending, where at least half of the masks have one."""
    stems = {name: own(naming.stem(name)) for name in images}
    for way in range(3):
        called = {name: of[way] for name, of in stems.items() if way == 0 or of[way] != of[0]}
        if found := pairs.paired(masks, called):
            return found
    return {}


def _by_ending(images: Sequence[str]) -> dict[str, str]:
    stems = {name: naming.stem(name) for name in images}
    masks = {name: bare(stem) for name, stem in stems.items() if bare(stem) != stem}
    return _paired(masks, [name for name in images if name not in masks])


def _by_folder(images: Sequence[str]) -> dict[str, str]:
    found = in_mask_folders(images)
    masks = {name: bare(naming.stem(name)) for name in images if name in found}
    return _paired(masks, [name for name in images if name not in masks])


def _by_pixels(survey: Survey) -> dict[str, str]:
    """Files of one name and two endings, where those of one ending hold few values."""
    by_stem: defaultdict[str, list[str]] = defaultdict(list)
    for name in survey.images:
        by_stem[name.removesuffix(PurePosixPath(name).suffix)].append(name)
    twins = [files for files in by_stem.values() if len(files) == 2]
    if not twins or len(twins) * 2 < len(by_stem):
        return {}
    for ending in sorted({unused.suffix(name) for files in twins for name in files}):
        few = [name for files in twins for name in files if unused.suffix(name) == ending]
        if len(few) == len(twins) and all(values_of(survey, name) is not None for name in few[:LOOKED_AT]):
            return {mask: next(n for n in files if n != mask) for mask, files in zip(few, twins, strict=True)}
    return {}


def _by_flatness(survey: Survey) -> dict[str, str]:
    """Files in folders of flat areas, called as the images in other folders are, whatever the folders are called."""
    by_folder: defaultdict[str, list[str]] = defaultdict(list)
    for name in survey.images:
        by_folder[name.rpartition("/")[0]].append(name)
    often = Counter(bare(naming.stem(name)).casefold() for name in survey.images)
    if len(by_folder) < 2 or max(often.values(), default=0) < 2:
        return {}
    if not any(_is_flat(survey, files[0]) for files in list(by_folder.values())[:LOOKED_AT]):
        return {}
    flat = {folder for folder, files in by_folder.items() if all(_is_flat(survey, file) for file in files[:SAMPLED])}
    masks = {name: bare(naming.stem(name)) for folder in sorted(flat) for name in by_folder[folder]}
    return _paired(masks, [name for name in survey.images if name not in masks])


def _is_flat(survey: Survey, name: str) -> bool:
    """Whether an image is of areas of one value or colour each."""
    data = survey.source.read(name)
    for colours in (False, True):
        with suppress(ReadError):
            cells = mask_pixels.read(data, name, colours=colours)
            return cells.shape[1] > 1 and bool((cells[:, 1:] == cells[:, :-1]).mean() > FLAT)
    return False


def unpaired(survey: Survey) -> list[str]:
    """Images in folders that are called as masks are."""
    found = in_mask_folders(survey.images)
    return [name for name in survey.images if name in found]


def without_image(survey: Survey, masks: Mapping[str, str]) -> Iterator[str]:
    """What to ask about files in folders of masks that belong to no image. masks: mask -> image."""
    if found := [name for name in unpaired(survey) if name not in masks]:
        yield (
            f"{counted(len(found), 'file')} in folders of masks, such as {found[0]}, belong to no one image by their "
            "names: move them away if they are none, or correct the patterns"
        )
