"""Slides, or images, with outlines drawn in a program: the shape slides itself reads which labels they hold."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

from dpconvert.annotations.read import OF_SEVERAL
from dpconvert.errors import UserError
from dpconvert.plural import counted
from dpconvert.readers.draft import folders, naming, outline_names, slide_tables, yolo_names
from dpconvert.readers.draft.masks.mask_files import masks_of
from dpconvert.readers.draft.masks.mask_values import all_values, default_names, value_lines
from dpconvert.readers.draft.outline_names import OutlineNames
from dpconvert.readers.draft.outline_summary import MPP, OutlineSummary
from dpconvert.readers.draft.survey import Draft, Survey, stem
from dpconvert.readers.draft.toml import printed, some, strings
from dpconvert.readers.draft.tree import Tree, endings
from dpconvert.readers.layouts import slides as layout
from dpconvert.source import unused

NO_FILE = "(?!)"
OME = re.compile(r"\.ome\.\w+$")  # a double suffix, which is no part of a name
NONE = "Nothing names the patient, so every {0} is its own group. If several {0}s of one patient are here, they may be "
NONE += (
    "divided between train and test, and scores will be too good: add (?P<group>...) to the pattern of [files.slides]."
)


def draft(survey: Survey) -> Draft | None:
    """A manifest of the shape slides; None without slides or outlines."""
    alone = [name for name, program in survey.outlines.items() if not _names_images(program)]
    called = outline_names.paired(alone, survey.slides or survey.images)
    files = [*survey.slides, *filter(OME.search, survey.images)] if survey.slides else _outlined(survey, called)
    if not files:
        return None
    tree = Tree.of(files)
    labelled = len(tree.at("class")) == 1 and not survey.outlines  # else annotations tell the labels
    roles = {tree.at("class")[0]: "class"} if labelled else {}
    noun = "slide" if survey.slides else "image"
    stated = slide_tables.StatedSlides.of(survey, tree.images, noun)
    of_class = dict(roles)
    roles, inner, grouped = folders.grouping(tree, [], roles)
    if stated is not None and stated.states_groups:
        roles, inner = of_class, "[^/]+"
    split, lines, unclear = folders.sets(tree, roles, grouped)
    ome = r"(?<!\.ome)(?:\.ome)?" if any(OME.search(name) for name in files) else ""
    of_several = survey.outlines and all(map(_names_images, survey.outlines.values()))
    named = tree.apart() if of_several else None  # else files of annotations are called as their images
    pattern = tree.pattern(roles, rf"(?P<name>{inner}){ome}\.(?i:{'|'.join(endings(files))})$", named)
    if stated is None and survey.slides:
        stated = slide_tables.StatedSlides.of_patients(survey, tree.images, pattern, noun)
    of_outlines = _outline_files(survey, called)
    patterns = {"slides": pattern, **{kind: one for kind, (one, _) in of_outlines.items()}}
    if stated is not None:  # read here already, and not under the shape's own names of columns
        patterns["table"] = NO_FILE
    drawn, failed = _drawn(survey, patterns, folders.renamed_sets(tree))
    failed += _ambiguous(drawn, called)
    about = f"{counted(len(tree.images), noun)}, like {tree.images[0]}"
    plain = Draft(
        "slides",
        kind="segmentation" if survey.slides else "detection",
        group=grouped.what if grouped.why else noun,
        why=grouped.why or (NONE.format(noun),),
        files={"slides": (pattern, about), **of_outlines},
        split=split,
    )
    questions = [*failed, *unclear, *survey.not_read()]
    if stated is not None and not survey.outlines and not drawn.masks and not labelled:
        whole = ('type = "tiles"          # each patch has the label of its slide', *_size(drawn))
        found = replace(plain, of="slides", rule=whole, layout=lines, questions=tuple(questions))
        return stated.added(stated.labelled(found))
    found = _labels(plain, survey, drawn, tree, questions, lines)
    return found if stated is None else stated.added(found)


def _outline_files(survey: Survey, called: OutlineNames | None) -> dict[str, tuple[str, str]]:
    """The pattern of files of annotations that the shape's own pattern does not match, with a comment."""
    usual = re.compile(layout.FILES["annotations"].pattern)
    tables = [name for name, program in survey.outlines.items() if _names_images(program) and not usual.search(name)]
    about = f"{counted(len(survey.outlines), 'file')}, like {min(survey.outlines, default='')}"
    if called is not None:
        return {"annotations": (called.pattern, about)}
    if yolo_names.are_yolo(survey):
        return {"annotations": (Tree.of([*survey.outlines]).pattern({}, r"(?P<name>[^/]+)\.(?i:txt)$"), about)}
    if not tables or len(tables) < len(survey.outlines):
        return {}
    listed = "|".join(map(naming.escaped, tables))
    return {"annotations": (f"^{listed}$" if len(tables) == 1 else f"^(?:{listed})$", about)}


def _ambiguous(drawn: OutlineSummary, called: OutlineNames | None) -> Iterator[str]:
    """Ask about several files per image whose outlines have labels of their own: two people may have drawn the same."""
    labels = called.labels if called else ()
    if labels and {label.casefold() for label in drawn.labels} - {label.casefold() for label in labels}:
        yield (
            f"An image has several files of annotations ({some(labels)}), whose outlines have labels of their own: all "
            "of them count. If they show the same, drawn by several people or in several versions, let the pattern of "
            "[files.annotations] match one of them"
        )


def _names_images(program: str) -> bool:
    """Whether files of a program name the images that they are about."""
    return program == "coco" or program in OF_SEVERAL


def _outlined(survey: Survey, called: OutlineNames | None) -> list[str]:
    """Images that files of annotation programs are about: all of those with the endings of such."""
    shared = [name for name, program in survey.outlines.items() if _names_images(program)]
    stems = {stem(name).casefold() for name in survey.outlines}
    paired = called.images if called else frozenset()
    about = [name for name in survey.images if stem(name).casefold() in stems or name in paired]
    if not about and not shared:
        return []
    masks = masks_of(survey)
    suffixes = {unused.suffix(name) for name in about}
    return [name for name in survey.images if name not in masks and (shared or unused.suffix(name) in suffixes)]


def _drawn(survey: Survey, patterns: Mapping[str, str], splits: Mapping[str, str]) -> tuple[OutlineSummary, list[str]]:
    """What is drawn, by the reader of the shape; and what it refuses."""
    from dpconvert import readers

    content = {"shape": "slides", "rule": {"type": "crop"}, "layout": {"missing": "none", "splits": splits}}
    source = survey.under(**content, files={kind: {"pattern": pattern} for kind, pattern in patterns.items()})
    drawn, reader = OutlineSummary(), readers.reader(source.manifest)
    try:
        images = list(reader.images(source))
    except UserError as error:
        return drawn, [source.reason(error)]
    for image in images:
        drawn.add(source, image)
    source.close()
    return drawn, [*drawn.faults[:3], *[f"and {len(drawn.faults) - 3} more such files"] * (len(drawn.faults) > 3)]


def _labels(
    plain: Draft,
    survey: Survey,
    drawn: OutlineSummary,
    tree: Tree,
    questions: list[str],
    lines: tuple[str, ...],
) -> Draft:
    """The draft with classes, rule, layout and questions."""
    noun = "slide" if survey.slides else "image"
    missing: tuple[str, ...] = ()
    if drawn.bare and len(drawn.bare) < drawn.number:
        missing = (
            f"missing = true  # {counted(len(drawn.bare), noun)} without annotations, as {drawn.bare[0]}: left out",
            '                # missing = "none" says that they show nothing of what the rule looks for',
        )
    if drawn.masks:
        return _of_masks(plain, survey, drawn, questions, (*missing, *lines))
    if not drawn.labels:
        return _of_tiles(plain, drawn, tree, questions, lines, annotated=bool(survey.outlines))
    if set(drawn.labels) == {""}:
        drawn.labels = Counter({"object": drawn.labels[""]})
        questions += _folders_of_objects(tree)
        lines = ('labels = {"" = "object"}  # the annotations have no label: name what they are', *lines)
    if yolo_names.are_yolo(survey):
        named, asked = yolo_names.classes(survey, drawn.labels)
        lines, questions = (*named, *lines), [*questions, *asked]
    labels = [label for label, _ in sorted(drawn.labels.items())]
    counts = ", ".join(f"{label or '(none)'} {drawn.labels[label]}" for label in labels)
    remarks = (
        f"Labels of the annotations, and how many of each: {counts}",
        *(f"Not used: folder {at + 1} of the path ({some(tree.levels[at].values)})" for at in tree.at("class")),
    )
    plain = replace(plain, of="annotations", remarks=remarks, layout=(*missing, *lines))
    if "" in labels:
        questions.append(
            "Some annotations have no label: name them in the program that drew them, or with `labels` in [layout]"
        )
    elif drawn.points == sum(drawn.labels.values()) or (drawn.small and (len(labels) > 1 or not survey.slides)):
        size = ("size = 64               # pixels around each object: fit it to them",) if drawn.points else ()
        rule = ('type = "crop"           # each object is one sample, and its label the class', *size)
        classes = {label: drawn.labels[label] for label in labels}
        return replace(plain, classes=classes, rule=rule, questions=tuple(questions))
    elif len(labels) == 1:
        rule = tuple(_area(drawn, labels[0], survey))
        classes = {"other": 0, labels[0]: drawn.labels[labels[0]]}
        return replace(plain, classes=classes, rule=rule, questions=tuple(questions))
    questions.append(
        f"Regions of several labels are drawn ({some(labels)}): which make a patch positive? Say so under `positive`, "
        "`cut` or `ignore` of [rule], and name two `classes`"
    )
    rule = tuple(f"# {line}" for line in _area(drawn, labels[0], survey))
    return replace(plain, rule=rule, questions=tuple(questions))


def _folders_of_objects(tree: Tree) -> Iterator[str]:
    """What to ask where annotations have no label, and folders may name a class."""
    for at in tree.at("class"):
        yield (
            f"The annotations have no label, and folder {at + 1} of the path ({some(tree.levels[at].values)}) may name "
            "a class: if it is that of the image, see the rules `whole` and `tiles`; if that of the objects, give "
            "the annotations this label; if neither, nothing need change"
        )


def _area(drawn: OutlineSummary, label: str, survey: Survey) -> Iterator[str]:
    yield f"# All that lies in no region counts as not {printed(label)}: true only if every one is outlined."
    yield 'type = "area"            # a patch is positive where the regions cover more than `share` of it'
    yield from _size(drawn)
    yield f"positive = {strings([label])}"
    yield "share = 0.5"
    if survey.slides:
        yield "tissue = 0.5            # patches with less tissue are left out"
    yield "cap = 1000              # patches of a class and image at most"


def _size(drawn: OutlineSummary) -> Iterator[str]:
    yield "size = 256              # side of a patch in pixels ..."
    if drawn.scaled:
        yield f"mpp = {MPP}               # ... at this resolution, in micrometres per pixel"
    else:
        yield "# mpp = 0.5             # ... of the file; not every file states a resolution as fine as this"


def _of_tiles(
    plain: Draft,
    drawn: OutlineSummary,
    tree: Tree,
    questions: list[str],
    lines: tuple[str, ...],
    *,
    annotated: bool,
) -> Draft:
    """Slides without annotations: the class is that of the whole slide, where folders tell it."""
    rule = ('type = "tiles"          # each patch has the label of its slide', *_size(drawn))
    if len(tree.at("class")) == 1 and not drawn.faults and not annotated:
        classes = tree.counts(tree.at("class")[0])
        return replace(plain, classes=classes, of="slides", rule=rule, layout=lines, questions=tuple(questions))
    questions.append(
        "No annotations are here that can be read, and no folders that name classes: put files of annotations beside "
        "the slides, or a table slides.csv with the columns slide, group and label (see `label` in [layout])"
    )
    return replace(plain, rule=rule, layout=lines, questions=tuple(questions))


def _of_masks(
    plain: Draft, survey: Survey, drawn: OutlineSummary, questions: list[str], lines: tuple[str, ...]
) -> Draft:
    values, wrong = all_values(survey, drawn.masks)
    questions = [*questions, *wrong]
    binary = len(values) == 2 and "0" in values
    if values and not binary:
        questions.append(
            f"The masks hold the values {some(values)}: name them under `values`, and choose `classes` and a [rule]"
        )
    rule = tuple(line if binary else f"# {line}" for line in _area(drawn, "object", survey))
    return replace(
        plain,
        classes={"background": 0, "object": 0} if binary else {},
        rule=rule,
        layout=(*lines[:2], *value_lines(default_names(values) if values else {}), *lines[2:]),
        questions=tuple(questions),
    )
