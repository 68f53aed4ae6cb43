"""A folder for each class, or a part of the file names: which level of folders is the class, the set, the patient."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from dpconvert.plural import counted
from dpconvert.readers import siblings
from dpconvert.readers.draft import grades, naming
from dpconvert.readers.draft.companions import companions, copied
from dpconvert.readers.draft.naming import NameGroup
from dpconvert.readers.draft.survey import Draft, Survey
from dpconvert.readers.draft.toml import SHARE, key, quoted, some
from dpconvert.readers.draft.tree import Tree
from dpconvert.readers.layout_keys import SPLIT_NAMES
from dpconvert.source import unused

MANY_IMAGES = re.compile(r"(?i)\.(?:h5|hdf5|npy|npz|parquet)(?:\.gz)?$")  # which the shape folders does not read

MAY_LABEL = re.compile(
    r"(?i)^(?!(?:.*/)?(?:readme|licen[cs]e|notice|citation))"
    r".*\.(?:jsonl?|xls|xlsm|xlsb|ods|txt|dat|mat|pkl|pickle|feather|arrow|ya?ml|db|sqlite3?"
    r"|(?:csv|tsv|jsonl?)\.(?:gz|bz2|xz|zip))$"
)
OFFICIAL = "official = true  # the sets that the files are divided into are kept"


def draft(survey: Survey) -> Draft | None:
    """A manifest of the shape folders; None without images."""
    if not survey.images:
        return None
    tree = Tree.of(survey.images)
    found = _by_folder(tree) if len(tree.at("class")) == 1 and not tree.at("unclear") else _by_name(tree)
    return replace(
        found,
        remarks=(*found.remarks, *_remarks(tree)),
        questions=(*found.questions, *companions(tree.images), *_beside(survey, tree), *_tables(survey, found)),
    )


def _beside(survey: Survey, tree: Tree) -> Iterator[str]:
    """Files that are called as images and may hold their labels: then folders are no sure sign of a class."""
    stems = set(map(str.casefold, tree.stems()))
    found = [
        name
        for name in survey.names
        if unused.WORDS.search(unused.suffix(name)) and not stems.isdisjoint(_beginnings(naming.stem(name).casefold()))
    ]
    if found:
        yield (
            f"{counted(len(found), 'file')} called as images, such as {found[0]}, may hold labels or annotations, and "
            "how to read them is unclear. If they do, choose the shape points, slides or table; else move "
            "them away"
        )


def _tables(survey: Survey, found: Draft) -> Iterator[str]:
    """Tables, and other files, that may hold the labels of images whose names do not."""
    if found.classes:
        return
    if survey.tables:
        tables = list(survey.tables.items())[:3]
        about = "; ".join(f"{name} ({some(table.columns, 6)})" for name, table in tables)
        yield (
            f"Tables are here, but no column names the images as they are called here: {about}. If one holds the "
            "labels, write file names into it that end as the files' own paths do, and run `dpconvert init` again; "
            "the first row must name the columns"
        )
    if survey.unread:
        yield f"Tables that cannot be read: {some(survey.unread, 3)}"
    read = {*survey.tables, *survey.outlines, *survey.foreign}
    others = [name for name in survey.names if MAY_LABEL.search(name) and name not in read]
    if others:
        yield (
            f"{counted(len(others), 'file')} that may hold labels, in a form that is not read for them: "
            f"{some(others, 3)}. If so, save them as CSV, with a row for each image, and run `dpconvert init` again"
        )


def _beginnings(text: str) -> Iterator[str]:
    yield text
    yield from (text[: mark.start()] for mark in siblings.APART.finditer(text))


def _by_folder(tree: Tree) -> Draft:
    """The class is the one level of folders that may be."""
    (at,) = tree.at("class")
    labels = [tree.folder(name, at) for name in tree.images]
    roles, inner, grouped = grouping(tree, labels, {at: "class"})
    split, layout, questions = sets(tree, roles, grouped)
    counts = grades.in_order(tree.counts(at))
    graded = grades.are_grades("", counts)
    return Draft(
        "folders",
        kind="ordinal" if graded else "classification",
        classes=counts,
        group=grouped.what,
        why=grouped.why,
        files={"images": (tree.pattern(roles, tree.file(inner)), about(tree, roles))},
        layout=layout,
        split=split,
        remarks=tuple(_of_grades(counts, graded=graded)),
        questions=(*questions, *copied(tree, at)),
    )


def _of_grades(counts: Mapping[str, int], *, graded: bool) -> Iterator[str]:
    """What a draft took the names of classes for."""
    if graded:
        yield (
            f"The classes read as grades ({some(counts)}): scores will be the quadratic kappa, which counts in this "
            'order. If they are in no order, state kind = "classification".'
        )
    elif grades.may_be_grades(counts):
        yield (
            f"The classes may be grades, and are listed in that order ({some(counts)}). If they are, state "
            'kind = "ordinal".'
        )


def about(tree: Tree, roles: Mapping[int, str]) -> str:
    roles_shown = [f"{role}: folder {at + 1} of the path" for at, role in sorted(roles.items())]
    return f"{counted(len(tree.images), 'image')}, like {tree.images[0]}. {'; '.join(roles_shown)}".rstrip(". ")


def _by_name(tree: Tree) -> Draft:
    """No level of folders, or more than one, may be the class: perhaps one part of the names says it."""
    told = tree.at("class") or tree.at("unclear") or any(map(MANY_IMAGES.search, tree.images))
    parts = [] if told else naming.class_in(tree.stems())
    labels, classes = list[str](), dict[str, int]()
    if len(parts) == 1:
        expression, counts = parts[0]
        labels = [found["class"] for stem in tree.stems() if (found := re.search(expression, stem))]
        classes = grades.in_order(counts)
    roles, inner, grouped = grouping(tree, labels, {}, apart=bool(labels))
    split, layout, questions = sets(tree, roles, grouped)
    return Draft(
        "folders",
        classes=classes,
        group=grouped.what,
        why=grouped.why,
        files={
            "images": (
                tree.pattern(roles, tree.file(_with_class(parts[0][0], inner) if labels else inner)),
                about(tree, roles),
            )
        },
        layout=layout,
        split=split,
        questions=questions if labels else (_which_class(tree, parts), *questions),
    )


def _with_class(expression: str, inner: str) -> str:
    """Both groups in one stem, the class by a look ahead where the group stands before or around it."""
    inside = expression.removeprefix("^")
    return f"{inside}[^/]*" if inner == "[^/]+" else f"(?={inside}){inner}"


def _which_class(tree: Tree, parts: list[tuple[str, Counter[str]]]) -> str:
    levels = sorted([*tree.at("class"), *tree.at("unclear")]) or tree.at("id")
    places = [f"folder {at + 1} of the path ({some(tree.levels[at].values)})" for at in levels]
    places += [f"a part of the file names ({some(sorted(counts))})" for _, counts in parts]
    where = "; ".join(places) or "nothing in their names"
    which = "Several things may be the class of an image" if len(places) > 1 else "What the class of an image is"
    return (
        f"{which}: {where}. Name the right one in the pattern of [files.images], as (?P<class>...), and list "
        '`classes`; if a table tells, see shape = "table"'
    )


@dataclass(frozen=True)
class Grouping:
    """What a group is, and why; values: the group of each image, where names tell it."""

    what: str
    why: tuple[str, ...]
    values: tuple[str, ...] = ()


def grouping(
    tree: Tree, labels: list[str], roles: dict[int, str], *, apart: bool = True
) -> tuple[dict[int, str], str, Grouping]:
    """Roles of levels with the group, an expression of a file's stem, and what to say of groups.

    apart: whether something else than folders tells the labels, so that a single level of folders is no class.
    """
    ids = [at for at in tree.at("id") if not naming.follows([tree.folder(n, at) for n in tree.images], labels)]
    if ids and (labels or len(tree.levels) > 1 or (apart and len(tree.counts(ids[0])) < len(tree.images))):
        at, found = ids[0], tree.counts(ids[0])
        why = f"Folder {at + 1} of the path is taken for the patient or slide: {counted(len(found), 'group')}, such as "
        values = tuple(tree.folder(name, at) for name in tree.images)
        return {**roles, at: "group"}, "[^/]+", Grouping("patient", (why + some(found, 3) + ".",), values)
    group = naming.group_in(tree.stems(), labels)
    if group is None and (copies := naming.altered_in(tree.stems())) is not None:
        return roles, _with_copies(copies), Grouping("image", (_why_copies(copies),), tuple(group_values(tree, copies)))
    if group is None:
        return roles, "[^/]+", Grouping("image", ())
    return roles, group_inner(group), Grouping(group.what, (group_why(group),), tuple(group_values(tree, group)))


def _with_copies(copies: NameGroup) -> str:
    """The expression of a stem whose beginning is the image that it is a copy of."""
    ending = copies.expression.removeprefix("^(?:.+?)(?=").removesuffix("$)")
    return f"(?P<group>[^/]+?){ending}"


def _why_copies(copies: NameGroup) -> str:
    return (
        f"Names tell altered copies of one image, such as {copies.example}: they are never divided between train, val "
        "and test. Nothing names the patient."
    )


def group_inner(group: NameGroup) -> str:
    """The expression of a stem, with the group in it."""
    anchored = group.expression.startswith("^")
    inside = f"(?P<group>{group.expression.removeprefix('^')})"
    return f"{inside}[^/]*" if anchored else rf"[^/]*?(?<![A-Za-z0-9]){inside}(?![A-Za-z0-9])[^/]*"


def group_why(group: NameGroup) -> str:
    """What a comment says of it."""
    return (
        f"Names have {counted(group.count, 'beginning')} in common, such as {group.example}: taken for the patient or "
        "slide, which is never divided between train, val and test. See that it is."
        if group.expression.startswith("^")
        else f"Names tell the {group.what}: {group.count} of them, such as {group.example}."
    )


def group_values(tree: Tree, group: NameGroup) -> Iterator[str]:
    for stem in tree.stems():
        found = re.search(group.expression, stem)
        yield found[0] if found else ""


def renamed_sets(tree: Tree) -> dict[str, str]:
    """`splits` of [layout]: folders of sets that are not called as the sets are -> their set."""
    folders = [folder for at in tree.at("split") for folder in tree.levels[at].values]
    return {folder: str(naming.as_set(folder)) for folder in folders if folder.lower() not in SPLIT_NAMES}


def sets(
    tree: Tree, roles: dict[int, str], grouped: Grouping
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Lines of [split.strict] and [layout] of files that are divided into sets, and what is wrong with these."""
    found = tree.at("split")
    if len(found) != 1:
        question = "Two levels of folders are called like train, val and test: name one `split` in the pattern"
        return (SHARE,), (), (question,) if found else ()
    at = found[0]
    roles[at] = "split"
    folders = tree.levels[at].values
    known = {naming.as_set(folder) for folder in folders}
    renamed = renamed_sets(tree)
    layout = tuple(
        ["[layout.splits]", *(f"{key(name)} = {quoted(to)}" for name, to in renamed.items())] if renamed else ()
    )
    split = [OFFICIAL]
    if "val" not in known and "train" in known:
        split.append(
            "val = 0.15  # no validation set is here: this share of the training set becomes one, by whole groups"
        )
    if "test" not in known:
        split.append("# no test set is here")
    homes = defaultdict(set)
    for name, value in zip(tree.images, grouped.values, strict=False):
        homes[value].add(naming.as_set(tree.folder(name, at)))
    shared = sorted(value for value, of in homes.items() if len(of) > 1)
    leak = (
        f"{counted(len(shared), 'group')} ({some(shared, 3)}) lie in more than one of the sets: if these are patients, "
        "the sets leak. Leave `official = true` out, for a `share` that keeps them whole; or correct the group in "
        "the pattern"
    )
    return tuple(split), layout, (leak,) if shared else ()


def _remarks(tree: Tree) -> Iterator[str]:
    if tree.strays:
        yield f"Left out: {counted(len(tree.strays), 'image')} outside these folders, the first {tree.strays[0]}"
    for at in tree.at("passed over"):
        yield f"Not used: folder {at + 1} of the path ({some(tree.levels[at].values)})"
    if tree.ragged:
        yield "Some images lie in further folders, which say nothing here"
