"""Points beside images: a file for each image, or one table for all, read by the shape points itself."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dpconvert.annotations import Annotations, programs
from dpconvert.errors import ReadError, UserError
from dpconvert.plural import counted
from dpconvert.readers.draft import folders, json_points, naming, sets
from dpconvert.readers.draft.listings import Listing, listings
from dpconvert.readers.draft.masks.pixels import side_of
from dpconvert.readers.draft.point_heads import MICROMETRES, axes_of, called_on, has_boxes, label_of, names_in
from dpconvert.readers.draft.survey import Draft, Survey, stem
from dpconvert.readers.draft.toml import some, strings, table
from dpconvert.readers.draft.tree import Tree, endings
from dpconvert.readers.layouts import points as layout

POINTS = re.compile(r"(?i)\.(csv|tsv|txt|json|mat)$")


@dataclass(frozen=True)
class How:
    """How points are read: the names of columns, columns that may be the label, a file that has no head.

    empty: images that are named without any point.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    other: tuple[str, ...] = ()
    headless: str = ""
    empty: frozenset[str] = frozenset()


SIDE = 64  # pixels, where no image is smaller


def draft(survey: Survey) -> Draft | None:
    """A manifest of the shape points; None where no points are beside images."""
    return _of_table(survey) or _of_files(survey) or _of_json(survey)


def _of_table(survey: Survey) -> Draft | None:
    """One table that names an image in several rows, with x and y; or one with two corners of boxes."""
    for listing, files in _of_all_images(survey):
        columns = list(listing.rows[0])
        boxes = has_boxes(columns)
        axes = {} if boxes else axes_of(columns)
        several = 1 < listing.matched < sum(map(bool, listing.images))
        if len(listing.columns) == 1 and (boxes or (several and len(axes) == 2)):
            return _draft(survey, _one_of(files), _names(listing, axes))
    return None


def _of_all_images(survey: Survey) -> Iterator[tuple[Listing, list[str]]]:
    """Tables that name images; those of several sets, as train/boxes.csv and test/boxes.csv, as one."""
    found, _ = listings(survey)
    for listing in found:
        same = [one for one in found if (one.template, *one.rows[0]) == (listing.template, *listing.rows[0])]
        if not sets.of_tables([one.file for one in same]):
            yield listing, [listing.file]
        elif listing is same[0]:
            rows, images = ([*itertools.chain(*parts)] for parts in ((o.rows for o in same), (o.images for o in same)))
            yield replace(listing, rows=rows, images=images), [one.file for one in same]


def _one_of(files: Sequence[str]) -> str:
    """A pattern for these files."""
    escaped = [naming.escaped(file) for file in files]
    return f"^{escaped[0]}$" if len(files) == 1 else f"^(?:{'|'.join(escaped)})$"


def _names(listing: Listing, axes: dict[str, str]) -> How:
    (image,) = listing.columns
    values = {column: listing.values(column) for column in listing.rows[0]}
    label, other = label_of(values, {image, *axes.values()})
    return How({"image": image, **axes, **label}, other)


def _of_json(survey: Survey) -> Draft | None:
    """One JSON file that names images, with x and y of each point."""
    found = json_points.found_in(survey)
    if found is None:
        return None
    boxes = has_boxes(found.keys)
    axes = {} if boxes else axes_of(found.keys)
    if found.keys and not boxes and len(axes) < 2:
        return None
    label, other = json_points.label_of(found)
    named = {"image": found.image, **axes, **({"label": label} if label else {})}
    return _draft(survey, "^" + naming.escaped(found.file) + "$", How(named, other, empty=found.empty))


def _of_files(survey: Survey) -> Draft | None:
    """Draft from files that have the same names as images, or tables of points whose names go on alike behind them."""
    images = {stem(name).casefold() for name in survey.images}
    suffix, files = (
        "",
        [
            name
            for name in survey.names
            if POINTS.search(name) and name not in survey.outlines and stem(name).casefold() in images
        ],
    )
    if not files:
        suffix, files = called_on(survey, images)
    if len(files) < 2 or len(files) * 2 < len(images):
        return None
    tree = Tree.of(files)
    name = f"(?P<name>[^/]+?){naming.escaped(suffix)}" if suffix else "(?P<name>[^/]+)"
    pattern = tree.pattern({}, rf"{name}\.(?i:{'|'.join(endings(files))})$")
    headless = _headless(survey, files)
    named, other = names_in(survey, files)
    return _draft(survey, pattern, How(named, other) if named else How(headless=headless))


def _headless(survey: Survey, files: list[str]) -> str:
    """The first text file without a header that names x and y."""
    for name in files:
        data = survey.source.read(name)
        if name.lower().endswith((".json", ".mat")) or not data.strip():
            continue
        head = re.split(rb"[\s,;|]+", data.lstrip(b"\xef\xbb\xbf").split(b"\n")[0].strip().lower().replace(b'"', b""))
        if not {b"x", b"y"} <= set(head) and not has_boxes([word.decode("latin-1") for word in head]):
            return name
    return ""


def _program(survey: Survey, name: str) -> str:
    """What is said of a file of a known program that is not read, as YOLO's; '' for another file."""
    try:
        programs.detect(survey.source.read(name), name)
    except programs.ForeignError as error:
        return f"{error.where}: {error.what}; {error.remedy}"
    except ReadError:
        return ""
    return ""


def _draft(survey: Survey, pattern: str, how: How) -> Draft | None:
    tree = Tree.of(survey.images)
    roles, inner, grouped = folders.grouping(tree, [], {})
    split, lines, unclear = folders.sets(tree, roles, grouped)
    suffix = rf"\.(?i:{'|'.join(endings(survey.images))})$"
    images = tree.pattern(roles, f"(?P<name>{inner}){suffix}")
    if not grouped.why and len({*tree.stems()}) < len(tree.images):  # else images of one name would be one group
        images = f"^(?P<group>{images.removeprefix('^').removesuffix(suffix)}){suffix}"
    unit = ('unit = "um"',) if any(MICROMETRES.search(how.names.get(axis, "")) for axis in "xy") else ()
    content: dict[str, object] = {"names": dict(how.names)} if how.names else {}
    content |= {"unit": "um"} if unit else {}
    content |= {"splits": renamed} if (renamed := folders.renamed_sets(tree)) else {}
    found, missing, faults = _found(survey, images, pattern, content, how.empty)
    if how.headless and not _program(survey, how.headless):
        found = Counter()  # no column is known
    labels = sorted(found, key=naming.natural)
    ready = bool(labels) and "" not in labels
    rule = _rule(labels, min(SIDE, side_of(survey, tree.images)))
    return Draft(
        "points",
        kind="detection",
        classes=_classes(labels, found) if ready else {},
        of="points",
        group=grouped.what,
        why=grouped.why,
        files={"images": (images, folders.about(tree, roles)), "points": (pattern, "")},
        layout=(*[f"names = {table(how.names)}"] * bool(how.names), *unit, *missing, *lines),
        rule=rule if ready else tuple(f"# {line}" for line in rule),
        split=split,
        questions=(*unclear, *_questions(survey, how, faults, labels)),
    )


def _questions(survey: Survey, how: How, faults: Sequence[str], labels: Sequence[str]) -> Iterator[str]:
    """What the files leave open."""
    program = _program(survey, how.headless) if how.headless else ""
    if program:
        yield program
    elif how.headless:
        yield (
            f"{how.headless} has no head that says which column is x and which y. Say in [layout] what the columns "
            'hold, as columns = ["x", "y", "label"], or ["y", "x"]; `skip` tells how many lines to pass over'
        )
    elif faults:
        yield f"The points cannot be read so: {faults[0]}"
    if how.other:
        yield f"Which column is the label? {some(how.other, 10)}: name it under `names`, or say `label`"
    if "" in labels:
        yield 'The points have no label: say in [layout] what they are, as label = "nucleus"'


def _classes(labels: Sequence[str], found: Mapping[str, int]) -> dict[str, int]:
    """The classes of crops around points of several labels, or of patches with and without points of a single one."""
    if len(labels) > 1:
        return {label: found[label] for label in labels}
    return {"without": 0, "with": found[labels[0]]}


def _rule(labels: Sequence[str], side: int) -> tuple[str, ...]:
    size = f"size = {side:<16} # pixels around each point, or of a patch: fit it to your objects"
    if len(labels) > 1:
        return 'type = "crop"           # a crop around each point, with the class of the point', size
    return (
        'type = "presence"       # a patch is positive where a point lies in it',
        size,
        f"positive = {strings(labels)}",
    )


def _found(
    survey: Survey, images: str, pattern: str, content: dict[str, object], empty: Collection[str]
) -> tuple[Counter[str], tuple[str, ...], list[str]]:
    """How many points of each label there are, a line of [layout] for images without any, and what cannot be read."""
    from dpconvert import readers

    source = survey.under(
        shape="points",
        rule={"type": "crop", "size": 8},
        mpp=1.0,  # any: only labels are counted
        layout={**content, "missing": "none"},
        files={"images": {"pattern": images}, "points": {"pattern": pattern}},
    )
    labels, bare, faults = Counter[str](), list[str](), list[str]()
    try:
        raw_images = list(readers.reader(source.manifest).images(source))
    except UserError as error:
        return labels, (), [source.reason(error)]
    for image in raw_images:
        if not image.annotations:
            bare.append(image.files[0])
            continue
        try:
            found = layout.read_annotations(source, image, source.open_image(image.files, image.columns))
        except ReadError as error:
            faults.append(source.reason(error))
            continue
        assert isinstance(found, Annotations)
        labels.update(item.label for item in found.items)
    source.close()
    if not bare:
        return labels, (), faults
    which = f"{counted(len(bare), 'image')} without points, the first {bare[0]}"
    if set(bare) <= set(empty):
        return labels, (f'missing = "none"  # {which}: named in the file, so they show none',), faults
    return labels, (f"missing = true  # {which}: left out",), faults
