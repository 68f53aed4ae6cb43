"""Gives images the sets that the files of the kind [files.sets] list them in (dpconvert.readers.set_entries).

Names in these files are those of images, with or without folders and endings, or those of groups (patients, slides).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from dpconvert import names
from dpconvert.annotations.listed import Names, bare
from dpconvert.errors import SourceError, cut
from dpconvert.plural import counted
from dpconvert.readers.layout_keys import SETS, SetLists
from dpconvert.readers.pairing import IMAGE
from dpconvert.readers.set_entries import SetEntry, entries_of
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage

IMAGE_FILE = re.compile(rf"(?i).*?\.(?:{IMAGE}|svs|ndpi|mrxs|scn|bif|dcm|czi|vsi)(?=[\s,;])")


def divided(source: Source, images: list[SourceImage]) -> list[SourceImage]:
    """The images with the sets that the files of [files.sets] state; notes on names that no image has.

    Raises:
        SourceError: an image is in two sets; a name means several images; no name is that of an image.
        ManifestError: how to read such a file is not said.
        ReadError: it cannot be read.
    """
    if SETS not in source.manifest.files:
        if source.manifest.shape and SETS in source.manifest.layout:
            source.notes.append(f"not used: `{SETS}` under [layout]: no [files.{SETS}] says which files list the sets")
        return images
    layout = SetLists.model_validate(
        {key: value for key, value in source.manifest.layout.items() if key in SetLists.model_fields}
    )
    entries = [entry for found in source.need(SETS) for entry in entries_of(source, found, layout)]
    homes = _homes(entries, images)
    met = {place for places in homes.values() for place in places}
    if not met:
        raise SourceError(
            "none of the names in these lists of sets is that of an image here",
            where=source.need(SETS)[0].name,
            found=", ".join(repr(cut(entry.name, 60)) for entry in entries[:3]) or "no names",
            expected=f"names like {images[0].files[0] if images else ''!r}, or those of groups",
        )
    source.notes += _not_here([entry for place, entry in enumerate(entries) if place not in met])
    return [_in_set(image, [entries[place] for place in homes[image.name]]) for image in images]


def _homes(entries: list[SetEntry], images: list[SourceImage]) -> dict[str, list[int]]:
    """Image -> the places of the entries that are about it: by its name, by that of its masks or annotations, or else
    by its group.

    Raises:
        SourceError: a name means several images that are not one group, or an image but for zeros before its number.
    """
    homes: dict[str, list[int]] = {image.name: [] for image in images}
    shared = Counter(file for image in images for file in image.annotations)
    for listed in map(Names, zip(*(readings(entry.name) for entry in entries), strict=True)):
        _find(homes, listed, entries, [(image, (image.files[0], image.name)) for image in images])
        _find(homes, listed, entries, [(i, [file for file in i.annotations if shared[file] == 1]) for i in images])
    images_of = defaultdict(list)
    for image in images:
        for place in homes[image.name]:
            images_of[place].append(image)
    for place, about in images_of.items():
        if len(about) > 1 and len({image.group for image in about}) > 1:
            raise SourceError(
                f"the name {entries[place].name!r} means several images",
                where=entries[place].file,
                found=" and ".join(image.files[0] for image in about[:2]),
                remedy="write names with the folders that tell the images apart",
            )
    groups = defaultdict(list)
    for place, entry in enumerate(entries):
        groups[names.folded(names.whole(entry.name))].append(place)
    homes = {image.name: homes[image.name] or groups.get(_group(image), []) for image in images}
    _check_zeros(entries, images, homes)
    return homes


def readings(text: str) -> tuple[str, str, str]:
    """What a name in a list may say: itself; a whole number, which programs write in decimals in a column with gaps;
    the first of several files on a line, as an image and its mask.
    """
    first = IMAGE_FILE.match(text)
    return text, names.whole(text), first[0] if first else text


def _find(
    homes: dict[str, list[int]],
    listed: Names,
    entries: list[SetEntry],
    called: list[tuple[SourceImage, Sequence[str]]],
) -> None:
    """Find the entries of images that have none so far, by what they are called. Those that agree but for an ending
    count only where they are those of no image that agrees in all.
    """
    near = {
        image.name: next(filter(None, map(listed.places, texts)), [])
        for image, texts in called
        if not homes[image.name]
    }
    taken = {place for places in homes.values() for place in places}
    for image, texts in called:
        own = {names.folded(form) for text in texts for form in (PurePosixPath(text).name, bare(text))}
        exact = [place for place in near.get(image.name, []) if names.folded(_last(entries[place].name)) in own]
        if exact:
            homes[image.name], near[image.name] = exact, []
            taken |= {*exact}
    for image, _ in called:
        if not homes[image.name]:
            homes[image.name] = [place for place in near[image.name] if place not in taken]


def _last(text: str) -> str:
    return text.replace("\\", "/").rpartition("/")[2]


def _group(image: SourceImage) -> str:
    return names.folded(names.whole(image.group))


def _check_zeros(entries: list[SetEntry], images: list[SourceImage], homes: dict[str, list[int]]) -> None:
    """Refuse names that would be those of an image or a group if a spreadsheet had not taken zeros before a number."""
    met = {place for places in homes.values() for place in places}
    here = {
        names.seen(text): text for image in images if not homes[image.name] for text in (bare(image.name), image.group)
    }
    for place, entry in enumerate(entries):
        text = names.seen(bare(names.whole(entry.name)))
        if place not in met and text in here:
            raise SourceError(
                f"no image or group here is called {entry.name!r}, and {here[text]!r} has no set",
                where=entry.file,
                remedy="write names as those of the files: spreadsheets take zeros before numbers away",
            )


def _in_set(image: SourceImage, entries: list[SetEntry]) -> SourceImage:
    """The image with the set of its entries.

    Raises:
        SourceError: they name several sets, or another one than the name of the file does.
    """
    stated = {entry.split: entry.file for entry in entries}
    if image.split is not None:
        stated.setdefault(image.split, f"the name of {image.files[0]}")
    if len(stated) > 1:
        found = " and ".join(f"{split} by {file}" for split, file in stated.items())
        raise SourceError(
            f"the image {image.name!r} is in two sets",
            where=image.files[0],
            found=found,
            remedy="correct the lists, or let the pattern of [files.sets] match only those that count",
        )
    return replace(image, split=next(iter(stated), None))


def _not_here(entries: list[SetEntry]) -> Iterator[str]:
    if entries:
        first = entries[0]
        yield (
            f"{counted(len(entries), 'name')} in lists of sets that no image here has, the first "
            f"{cut(first.name, 60)!r} in {first.file}"
        )
