"""Masks beside images: which files are masks, told by their names or by the few values that they hold."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import PurePosixPath

import numpy as np

from dpconvert.annotations import mask_pixels
from dpconvert.errors import ReadError
from dpconvert.image.header import complete_size
from dpconvert.plural import counted
from dpconvert.readers.draft import folders, names
from dpconvert.readers.draft.survey import Draft, Survey
from dpconvert.readers.draft.toml import quoted, some
from dpconvert.readers.draft.tree import Tree, endings
from dpconvert.source import unused

WORDS = r"masks?|labels?|gt|groundtruth|ground[-_ ]truth|seg|segmentations?|annotations?|manual|mask[-_ ]images?"
FOLDER = re.compile(rf"(?i)(?:[^/]*[-_ ])?(?:{WORDS})(?:t[rs]|[-_ ][^/]*)?")  # labelsTr: of nnU-Net
PROGRAMS = r"cp[-_ ]masks?|labell?ed|binary|simple[-_ ]segmentation|object[-_ ]identities"  # Cellpose, QuPath, ilastik
ENDING = re.compile(rf"(?i)[._ -](?:{WORDS}|{PROGRAMS})$")
BRACKETS = re.compile(rf"(?i)[._ -]*[(\[](?:{WORDS})[)\]]$")
BEGINNING = re.compile(rf"(?i)^(?:{WORDS}|{PROGRAMS})(?:(?:[._ -]of)?[._ -]+|(?=\d))")  # as in "Mask of P1.png"
OWN = r"imgs?|images?|raw|rgb|sat|orig(?:inal)?|0000"  # words of images, in place of those of masks
CHANNEL = re.compile(r"_000[1-9]$")
OWN_ENDING = re.compile(rf"(?i)[._ -](?:{OWN})$")
OWN_BEGINNING = re.compile(rf"(?i)^(?:{OWN})(?:[._ -]+|(?=\d))")
LOOKED_AT = 24  # masks whose values are read
PATCH = 256  # side in pixels, where the images are not smaller
MEASURED = 50  # images
FEW = 16  # values of a mask
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


def _paired(masks: dict[str, str], images: Iterable[str]) -> dict[str, str]:
    """Masks by what their images are called, with or without an ending, where at least half of the masks have one."""
    stems = {name: names.stem(name) for name in images}
    ended = {name: OWN_ENDING.sub("", stem) for name, stem in stems.items() if OWN_ENDING.search(stem)}
    begun = {name: OWN_BEGINNING.sub("", stem) for name, stem in stems.items() if OWN_BEGINNING.search(stem)}
    for called_as in (stems, ended, begun):
        by_stem: defaultdict[str, list[str]] = defaultdict(list)
        for name, stem in called_as.items():
            by_stem[stem.casefold()].append(name)
        found = {mask: by_stem[called][0] for mask, called in masks.items() if len(by_stem.get(called, ())) == 1}
        if found and len(found) * 2 >= len(masks):
            return found
    return {}


def _by_ending(images: Sequence[str]) -> dict[str, str]:
    stems = {name: names.stem(name) for name in images}
    masks = {name: bare.casefold() for name, stem in stems.items() if (bare := _bare(stem)) != stem}
    return _paired(masks, [name for name in images if name not in masks])


def _by_folder(images: Sequence[str]) -> dict[str, str]:
    masks = {
        name: _bare(names.stem(name)).casefold()
        for name in images
        if any(map(FOLDER.fullmatch, PurePosixPath(name).parts[:-1]))
    }
    return _paired(masks, [name for name in images if name not in masks])


def _bare(stem: str) -> str:
    """The name of a mask without what says that it is one, at the end or at the beginning."""
    found = BRACKETS.sub("", ENDING.sub("", stem))
    return found if found != stem else BEGINNING.sub("", stem)


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
    often = Counter(_bare(names.stem(name)).casefold() for name in survey.images)
    if len(by_folder) < 2 or max(often.values(), default=0) < 2:
        return {}
    if not any(_is_flat(survey, files[0]) for files in list(by_folder.values())[:LOOKED_AT]):
        return {}
    flat = {folder for folder, files in by_folder.items() if all(_is_flat(survey, file) for file in files[:SAMPLED])}
    masks = {name: _bare(names.stem(name)).casefold() for folder in sorted(flat) for name in by_folder[folder]}
    return _paired(masks, [name for name in survey.images if name not in masks])


def _is_flat(survey: Survey, name: str) -> bool:
    """Whether an image is of areas of one value or colour each."""
    data = survey.source.read(name)
    for colours in (False, True):
        with suppress(ReadError):
            cells = mask_pixels.read(data, name, colours=colours)
            return cells.shape[1] > 1 and bool((cells[:, 1:] == cells[:, :-1]).mean() > FLAT)
    return False


def values_of(survey: Survey, name: str) -> set[str] | None:
    """The values of a mask, numbers or '#rrggbb', or None if there are more than FEW."""
    data = survey.source.read(name)
    for colours in (False, True):
        try:
            found = np.unique(mask_pixels.read(data, name, colours=colours))
        except ReadError:
            continue
        if len(found) <= FEW:
            return {f"#{value:06x}" if colours else str(value) for value in found.tolist()}
        return None
    return None


def draft(survey: Survey) -> Draft | None:
    """A manifest of the shape masks; None where no masks are beside images."""
    masks = masks_of(survey)
    if not masks:
        return None
    known = set(masks)
    images = [name for name in survey.images if name not in known]
    tree = Tree.of(images)
    roles, inner, grouped = folders.grouping(tree, [], {})
    split, layout, unclear = folders.sets(tree, roles, grouped)
    values, questions = all_values(survey, sorted(masks))
    bare = sorted(set(images) - set(masks.values()))
    lines = [*_missing(bare), *value_lines(values), *layout]
    binary = (len(values) == 2 and "0" in values) or values.keys() == {"#000000", "#ffffff"}
    if values and not binary:
        questions.append(
            f"The masks hold {counted(len(values), 'value')} ({some(values)}), and nothing says what they are called "
            "or which of them make a patch positive: name them under `values`, and choose `classes` and a [rule]; "
            f'if they tell objects apart, state `objects = "{_objects_by(values)}"` in place of `values`'
        )
    if channels := [name for name in bare if CHANNEL.search(names.stem(name))]:
        questions.append(
            f"{counted(len(channels), 'file')} such as {channels[0]} may be further channels of images, as nnU-Net "
            "keeps them apart: they are not put together. If so, save red, green and blue as one image"
        )
    return Draft(
        "masks",
        kind="segmentation",
        classes={"background": 0, "object": 0} if binary else {},
        group=grouped.what,
        why=grouped.why,
        files={
            "images": (tree.pattern(roles, _named(tree, inner, masks)), folders.about(tree, roles)),
            "masks": (mask_pattern(sorted(masks), masks), f"{counted(len(masks), 'mask')}, like {min(masks)}"),
        },
        layout=tuple(lines),
        rule=_rule(side_of(survey, images), binary=binary),
        split=split,
        questions=(*questions, *unclear),
    )


def _objects_by(values: Iterable[str]) -> str:
    return "colours" if any(value.startswith("#") for value in values) else "values"


def _named(tree: Tree, inner: str, masks: dict[str, str]) -> str:
    return rf"{filled(image_name(masks), inner)}\.(?i:{'|'.join(endings(tree.images))})$"


def image_name(masks: dict[str, str]) -> str:
    """The names of images, which end as none of the masks does; `filled` puts an expression of the stem in."""
    own_before, own_after = _around({image: _called(mask, image) for mask, image in masks.items()})
    if any(own_before):
        return f"(?={{inner}}){_one_of(own_before)}(?P<name>[^/]+?){_one_of(own_after)}"
    if any(own_after):
        return f"(?P<name>{{inner}}){_one_of(own_after)}"
    before, after = _around({mask: _called(mask, image) for mask, image in masks.items()})
    barred = "".join(f"(?!{names.escaped(beginning)})" for beginning in before if beginning)
    return f"{barred}(?P<name>{{inner}})" + "".join(f"(?<!{names.escaped(ending)})" for ending in after if ending)


def filled(name: str, inner: str) -> str:
    """The names of images with the expression of a stem."""
    return name.replace("(?={inner})", "" if inner == "[^/]+" else f"(?={inner})").replace("{inner}", inner)


def mask_pattern(masks: list[str], images: dict[str, str]) -> str:
    """Folders of masks as they are, and the beginning and the end of their names that images lack."""
    tree = Tree.of(masks)
    before, after = map(_one_of, _around({mask: _called(mask, image) for mask, image in images.items()}))
    return tree.pattern({}, rf"{before}(?P<name>[^/]+?){after}\.(?i:{'|'.join(endings(masks))})$")


def _around(called: dict[str, str]) -> tuple[list[str], list[str]]:
    """What names of files have at their beginning, and at their end, beyond what they are called."""
    before, after = set[str](), set[str]()
    for file, name in called.items():
        stem = names.stem(file)
        at = 0 if stem.casefold().startswith(name.casefold()) else len(stem) - len(name)
        before.add(stem[:at])
        after.add(stem[at + len(name) :])
    return sorted(before), sorted(after)


def _called(mask: str, image: str) -> str:
    """What a mask and its image have in common."""
    stem, of_mask = names.stem(image), names.stem(mask)
    wanted = {of_mask.casefold(), _bare(of_mask).casefold()}
    for own in (stem, OWN_ENDING.sub("", stem), OWN_BEGINNING.sub("", stem)):
        if own.casefold() in wanted:
            return own
    return stem


def _one_of(texts: list[str]) -> str:
    """An expression of these texts."""
    listed = "|".join(map(names.escaped, texts))
    return listed if len(texts) == 1 else f"(?:{listed})"


def all_values(survey: Survey, masks: list[str]) -> tuple[dict[str, int], list[str]]:
    """Value -> in how many of the masks that were looked at; and what is wrong with these."""
    found: Counter[str] = Counter()
    step = max(1, len(masks) // LOOKED_AT)
    for name in masks[::step]:
        values = values_of(survey, name)
        if values is None:
            return {}, [
                f"{name} holds more than {FEW} values: is it a mask? If its values number objects, state "
                '`objects = "values"` in [layout]; if it was saved as JPEG or smoothed, `threshold` makes two values '
                "of it"
            ]
        found.update(values)
    return {value: found[value] for value in sorted(found, key=names.natural)}, []


def value_lines(values: dict[str, int]) -> Iterator[str]:
    if not values:
        yield '# values = {0 = "background", 255 = "object"}'
        return
    yield "[layout.values]  # value or colour of a mask -> class; names are ours, to be changed"
    first = "0" if "0" in values else "#000000" if "#000000" in values else ""
    for number, value in enumerate(values):
        name = "background" if value == first else "object" if len(values) == 2 else f"value {number}"
        yield f"{quoted(value) if value.startswith('#') else value} = {quoted(name)}"


def _missing(bare: list[str]) -> list[str]:
    if not bare:
        return []
    return [
        f"missing = true  # {counted(len(bare), 'image')} without a mask, the first {bare[0]}: left out and counted"
    ]


def side_of(survey: Survey, images: list[str]) -> int:
    """The side of a patch in pixels that lies in each of the first images: many are smaller than PATCH."""
    sizes = [complete_size(survey.source.file(name)) for name in images[:MEASURED]]
    return min([PATCH, *(side for size in sizes if size is not None for side in size)])


def _rule(side: int, *, binary: bool) -> tuple[str, ...]:
    lines = (
        'type = "area"              # a patch is positive where the mask covers more than `share` of it',
        f"size = {side:<18} # pixels: fit it to your images",
        'positive = ["object"]',
        "share = 0.5",
    )
    return lines if binary else tuple(f"# {line}" for line in lines)


def unpaired(survey: Survey) -> list[str]:
    """Images in folders that are called as masks are."""
    return [name for name in survey.images if any(map(FOLDER.fullmatch, PurePosixPath(name).parts[:-1]))]
