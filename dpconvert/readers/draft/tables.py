"""A table beside images: which column names the image, which the label, the patient, the set."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace

from dpconvert.annotations.points import LABELS
from dpconvert.plural import counted
from dpconvert.readers.draft import coordinates, folders, grades, label_kinds, naming, sets
from dpconvert.readers.draft.joins import Join
from dpconvert.readers.draft.joins import joined as joins_of
from dpconvert.readers.draft.listings import Listing, listings
from dpconvert.readers.draft.survey import Draft, Survey
from dpconvert.readers.draft.toml import ALONE, SHARE, quoted, some
from dpconvert.readers.draft.tree import Tree
from dpconvert.readers.layouts.table import WHOLE

GROUPS = re.compile(
    rf"(?i)(?:^|[^a-z])({naming.PEOPLE}|pid|mrn|group|slide|wsi|specimen|biopsy|block|tma)"
    r"(?:$|(?:en)?[^a-z]|(?:s|en)?(?:id|name|nr|no|num|number|nummer|code|key)s?$)"
)
OF_PATIENTS = ("group", "specimen", "biopsy", "block")
SETS = re.compile(r"(?i)(^|[^a-z])(split|set|subset|partition|phase|fold)($|[^a-z])")
OTHER = re.compile(
    r"(?i)(^|[^a-z])(sex|gender|age|ethnicity|race|scanner|hospital|cent(er|re)|site|source|date|year|stain|organ|"
    r"dataset|magnification|mag|operator|annotator|fold|index|unnamed|id|width|height|size|"
    r"geschlecht|alter|zentrum|klinik|datum|jahr|sexe|h[oô]pital|ann[eé]e)($|[^a-z])|^\.\.\.\d+$"
)
NAMED = re.compile(rf"(?i)({'|'.join(LABELS)}|target|diagnosis)")
NUMBERED = re.compile(r"([^\W\d]+[-_ ]?)\d+(?:\n\1\d+){3,}")  # P1, P2, ...: four and more
NUMBER = re.compile(r"[-+]?\d*\.\d+([eE][-+]?\d+)?")


def draft(survey: Survey) -> Draft | None:
    """A manifest of the shape table; None where no table names images and a label."""
    found, unclear = listings(survey)
    if not found:
        return None
    if all(lists_sets(listing) for listing in found):  # what the images show, their masks or folders tell
        return None
    tables = _together(found)
    if _are_sets(tables):
        return _draft(survey, tables, unclear)
    whole, joins, doubts = joins_of(survey, tables[0], tables[1:])
    return _with_joins(_draft(survey, [whole], [*unclear, *doubts]), tables[0], joins)


def _together(found: list[Listing]) -> list[Listing]:
    """The tables of the columns of the one that names the most images."""
    most = max(found, key=lambda listing: (listing.matched, bool(label_of(listing)[0]), len(listing.rows[0])))
    same = [one for one in found if one.template == most.template and one.rows[0].keys() == most.rows[0].keys()]
    return same if _are_sets(same) else [most, *(one for one in found if one is not most)]


def _with_joins(draft: Draft, main: Listing, joins: list[Join]) -> Draft:
    """The draft with the joined tables that it takes columns from."""
    text = "\n".join(line for line in draft.layout if not line.startswith("#"))
    used = [join for join in joins if any(quoted(column) in text for column in join.columns)]
    left = [join for join in joins if join not in used and join.columns]
    remarks = [f"{join.file} says more of the images ({some(join.columns)}): nothing of it is used" for join in left]
    if not used:
        return replace(draft, remarks=(*draft.remarks, *remarks))
    listed = "|".join(naming.escaped(join.file) for join in used)
    pattern = f"^{listed}$" if len(used) == 1 else f"^(?:{listed})$"
    by = used[0].by
    adds = "; ".join(f"{join.file} adds {some(join.columns)}" for join in used)
    why = f"{adds} to the rows of {main.file}, by the column {by!r} that both have."
    return replace(
        draft,
        files={"table": draft.files["table"], "joined": (pattern, adds), "images": draft.files["images"]},
        layout=(*draft.layout, f"join = {quoted(by)}"),
        remarks=(why, *draft.remarks, *remarks),
    )


def lists_sets(table: Listing) -> bool:
    """Whether a table says of each image its set, by a column or by the one that it is in, and nothing that may be a
    label.
    """
    by_columns = bool(table.columns) and all(map(naming.as_set, table.columns))
    return by_columns or (bool(sets.split_column(table, SETS)) and not label_columns(table))


def _are_sets(tables: list[Listing]) -> bool:
    return bool(sets.of_tables([table.file for table in tables]))


def _draft(survey: Survey, tables: list[Listing], unclear: list[str]) -> Draft:
    whole = _whole(tables)
    label, questions, others = label_of(whole)
    columns = label_columns(whole)
    other = label_kinds.other_labels(columns, label)
    of_targets = [*questions, *label_kinds.questions(columns, label)] if other is None else []
    asked, places = coordinates.questions(survey, whole)
    questions = [*unclear, *of_targets, *asked]
    group, split = group_of(whole, questions), sets.split_column(whole, SETS)
    tree = Tree.of(sorted({image for image in whole.images if image}))
    roles, inner, grouped = _grouping(whole, tree, label, by_column=bool(group))
    official = bool(split) or len(tables) > 1
    lines = _label_lines(whole, label, others) if other is None else other.lines
    counts = label_kinds.classes(whole.values(label)) if label else {}
    graded = grades.are_grades(label, counts)
    pattern = "^" + naming.escaped(whole.file) + "$" if len(tables) == 1 else sets.pattern(tables)
    return Draft(
        "table",
        kind=other.kind if other is not None else "ordinal" if graded else "classification",
        classes=counts if other is None else other.classes,
        of="images",
        remarks=(*(label_kinds.remarks(columns, label) if other is None else other.remarks), *places),
        group=group_kind(group) if group else grouped.what,
        why=(why_grouped(whole, group),) if group else _no_column(whole, grouped, label, split),
        files={
            "table": (pattern, f"{counted(len(whole.rows), 'row')}, {counted(whole.matched, 'image')} of them here"),
            "images": (tree.pattern(roles, tree.file(inner, named=False)), folders.about(tree, roles)),
        },
        layout=(
            f"file = {quoted(whole.template)}  # how a row names its image",
            *lines,
            *[f"group = {quoted(group)}"] * bool(group),
            *[f"split = {quoted(split)}"] * bool(split),
            *_missing(whole, label, other),
        ),
        split=sets.lines(whole, split, tables) if official else (SHARE,),
        questions=tuple(questions),
    )


def _whole(tables: list[Listing]) -> Listing:
    """The rows of all tables as those of one."""
    rows = [row for table in tables for row in table.rows]
    return replace(tables[0], rows=rows, images=[image for table in tables for image in table.images])


def _grouping(
    table: Listing, tree: Tree, label: str, *, by_column: bool
) -> tuple[dict[int, str], str, folders.Grouping]:
    """What names tell of groups, in the form of `folders.grouping`; they are not read where a column tells them."""
    labels = dict(zip(table.images, (row.get(label, "") for row in table.rows), strict=True))
    roles, inner, grouped = folders.grouping(tree, [labels.get(name, "") for name in tree.images], {})
    return ({}, "[^/]+", grouped) if by_column else (roles, inner, grouped)


def label_columns(table: Listing) -> list[label_kinds.Column]:
    """The columns that may hold labels, with the cells of the images that are here."""
    free = [
        column for column in table.rows[0] if column and column not in {*table.columns, sets.split_column(table, SETS)}
    ]
    unlike = (OTHER, SETS, GROUPS)
    return [(name, table.values(name)) for name in free if not any(pattern.search(name) for pattern in unlike)]


def label_of(table: Listing) -> tuple[str, list[str], list[str]]:
    """The one column that may be the label, else '' and a question; and the columns that are listed beside it."""
    split = sets.split_column(table, SETS)
    candidates = [column for column in table.rows[0] if column != split and _may_be_label(table, column)]
    named = [column for column in candidates if NAMED.fullmatch(column)]
    shown_values = {column: _shown(table, column) for column in candidates}
    likely = [column for column in candidates if not OTHER.search(column) and not SETS.search(column)]
    likely = [column for column in likely if not GROUPS.search(column)]
    if len(named) == 1:
        return named[0], [], [f"{column}: {shown_values[column]}" for column in candidates if column != named[0]]
    if len(likely) == 1 and not named and _are_numbered(table, likely[0]):
        question = (
            f"The column {likely[0]!r} of {table.file} may number patients or groups ({shown_values[likely[0]]}): if "
            "so, it is `group` in [layout], and no label; if these are classes, nothing need change"
        )
        return likely[0], [question], []
    if len(likely) == 1 and not named:
        return likely[0], [], [f"{column}: {shown_values[column]}" for column in candidates if column != likely[0]]
    shown = "; ".join(f"{column} ({shown_values[column]})" for column in candidates) or "none has few values"
    which = "Several columns may be the label" if len(candidates) > 1 else "No column is surely the label"
    question = f"{which} in {table.file}: {shown}. Say in [layout] which one is `label`, and list `classes`"
    return "", [question], [f"{column}: {shown_values[column]}" for column in candidates]


def _are_numbered(table: Listing, column: str) -> bool:
    """Whether the values of a column are one word with many numbers, as those of patients are; grades aside."""
    values = "\n".join(sorted(set(table.values(column)) - {""}))
    return bool(NUMBERED.fullmatch(values)) and not grades.GRADES.search(column)


def _may_be_label(table: Listing, column: str) -> bool:
    values = [value for value in table.values(column) if value]
    distinct = set(values)
    return (
        bool(column)
        and column not in table.columns
        and 1 < len(distinct) <= min(naming.MOST_CLASSES, max(2, len(values) // 2))
        and (not all(map(NUMBER.fullmatch, distinct)) or all(map(WHOLE.fullmatch, distinct)))
        and not (GROUPS.search(column) and len(distinct) > 10)
        and (bool(NAMED.fullmatch(column)) or not label_kinds.is_measured(column, values))
    )


def _shown(table: Listing, column: str) -> str:
    counts = Counter(value for value in table.values(column) if value)
    return some((f"{value} {count}" for value, count in sorted(counts.items(), key=lambda c: naming.natural(c[0]))), 6)


def _label_lines(table: Listing, label: str, others: list[str]) -> Iterator[str]:
    if label:
        yield f"label = {quoted(label)}"
    else:
        yield "# label = ..."
    yield from (f"# other column, with few values: {folders_comment(other)}" for other in others)
    if label:
        yield '# labels = {value = "class"}  # where classes shall be called otherwise; `skip` lists what to leave out'


def folders_comment(text: str) -> str:
    """Text on one line of a comment."""
    return "".join(letter if letter.isprintable() else " " for letter in text)[:100]


def group_of(table: Listing, questions: list[str]) -> str:
    """The column of the patient or slide: of several, the one whose groups hold those of the others."""
    columns = [column for column in table.rows[0] if column not in table.columns and _may_be_group(table, column)]
    columns += [column for column in table.columns if GROUPS.search(column) and len(table.columns) > 1]
    if len(columns) < 2:
        return "".join(columns)
    coarsest = [one for one in columns if all(_holds(table, one, other) for other in columns if other != one)]
    if coarsest:
        return coarsest[0]
    questions.append(f"Several columns may be the group: {', '.join(columns)}. Say in [layout] which one is `group`")
    return ""


def _may_be_group(table: Listing, column: str) -> bool:
    return bool(GROUPS.search(column)) and len(set(table.values(column))) > 1


def _holds(table: Listing, coarse: str, fine: str) -> bool:
    """Whether each value of `fine` occurs with only one value of `coarse`."""
    homes = defaultdict(set)
    for one, other in zip(table.values(coarse), table.values(fine), strict=True):
        homes[other].add(one)
    return all(len(found) == 1 for found in homes.values())


def group_kind(group: str) -> str:
    """What a column of groups numbers, by its name."""
    found = GROUPS.search(group)
    word = found[1].casefold() if found else ""
    if re.match(naming.PEOPLE, word, re.IGNORECASE) or word in ("fall", "pid", "mrn"):
        return "patient"
    return word if word in OF_PATIENTS else "slide"


def why_grouped(table: Listing, group: str) -> str:
    values = table.values(group)
    return (
        f"The column {group!r} tells the {group_kind(group)}: {counted(len(set(values)), group_kind(group))} of "
        f"{counted(len(values), 'image')}; images of one are never divided between train, val and test."
    )


def _no_column(table: Listing, grouped: folders.Grouping, label: str, split: str) -> tuple[str, ...]:
    if grouped.why:
        return grouped.why
    columns = [column for column in table.rows[0] if column and column not in {label, split}]
    return (f"{ALONE}name the column of the patient as `group` in [layout]. The columns: {some(columns, 20)}.",)


def _missing(table: Listing, label: str, other: label_kinds.OtherLabels | None) -> list[str]:
    absent = sum(not image for image in table.images)
    blank = other.missing if other is not None else table.values(label).count("") if label else 0
    what = [counted(absent, "row") + " without an image here"] * bool(absent)
    what += [counted(blank, "row") + " without a label"] * bool(blank)
    return [f"missing = true  # {' and '.join(what)}: left out and counted"] if what else []
