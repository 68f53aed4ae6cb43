"""A folder in, the manifest of its files out: what each shape can tell of them, the most telling one first.

The readers of the shapes read tables and annotations; here is only what to conclude of what they read. Where several
things may be meant none is chosen: a draft says what somebody must fill in.
"""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from dpconvert.card import FILE_NAME
from dpconvert.errors import SourceError
from dpconvert.names import DECIMAL, alike, escaped, plain, readable, reads_date, reads_missing, unaccented
from dpconvert.plural import counted
from dpconvert.readers.draft import cytomine, folders, folds, held, labelled_masks, large, points, slides, tables, toml
from dpconvert.readers.draft.masks import mask_files, objects, pixels
from dpconvert.readers.draft.set_lists import with_sets
from dpconvert.readers.draft.survey import Draft, Survey
from dpconvert.readers.layouts import arrays, parquet
from dpconvert.source.name_encoding import ADVICE
from dpconvert.source.written import is_written

SHARD = re.compile(r"(?i)\.(tar|tgz|tar\.(gz|bz2|xz))/.*\.(cls|json|txt)$")


@dataclass(frozen=True)
class Drafted:
    """A draft and its text."""

    draft: Draft
    task: str
    text: str


def draft(root: Path) -> Drafted:
    """The manifest of what lies in a folder.

    Raises:
        SourceError: no such folder, no images in it, or nothing but tasks that a conversion has written.
        ReadError: an archive in it cannot be read.
    """
    survey = Survey.of(root)
    _refuse_tasks(survey)
    if not survey.images and not survey.slides:
        raise survey.nothing()
    shapes = (cytomine, slides, held, points, labelled_masks, tables, objects, pixels, folders)
    found = with_sets(survey, next(draft for shape in shapes if (draft := shape.draft(survey)) is not None))
    unread = [note for note in survey.source.notes if "not read" in note]
    of_folds = folds.unused(survey, found) if found.shape == "table" else ()
    remarks = (*found.remarks, *of_folds, *(note[:1].upper() + note[1:] for note in unread))
    found = replace(found, remarks=remarks, questions=(*found.questions, *_doubts(survey, found)))
    task = task_name(root)
    return Drafted(found, task, toml.page(found, task, readable(escaped(str(root)))))


def _refuse_tasks(survey: Survey) -> None:
    """Refuse a folder of finished tasks, which need no manifest; beside other files, a source has none of theirs."""
    cards = [PurePosixPath(name) for name in survey.names if PurePosixPath(name).name == FILE_NAME]
    if tasks := [card.parent for card in cards if is_written(survey.root / card.parent)]:
        shards = survey.root.parent if tasks == [PurePosixPath()] else survey.root
        raise SourceError(
            f"holds {counted(len(tasks), 'task')} that dpconvert has written, and nothing to convert",
            where=survey.root,
            remedy=f"`mtrain fit --shards {shlex.quote(str(shards))}` trains on them as they are",
        )


def _doubts(survey: Survey, found: Draft) -> Iterator[str]:
    """What speaks against a draft, whatever shape it has."""
    by_key: defaultdict[str, list[str]] = defaultdict(list)
    for name in found.classes:
        by_key[_key(name)].append(name)
    if twins := [some for some in by_key.values() if len(some) > 1]:
        yield (
            f"Classes whose names differ in little ({'; '.join(map(' and '.join, twins))}): if these are one class, "
            "name it once, by `labels` in [layout], and in `classes`"
        )
    if missing := [name for name in found.classes if reads_missing(name)]:
        yield (
            f"Classes that read as if no label were known ({toml.some(map(repr, missing))}): if so, take them "
            f"out of `classes`{_leave_out(found, missing)}; if they are classes, nothing need change"
        )
    if guessed := survey.source.encoding.guessed:
        names_of_it = next(iter(guessed.values()))
        yield (
            f"Names in archives are not UTF-8, and may be wrong here, such as {names_of_it[0]}. If so, {ADVICE}; write "
            "classes and patterns as the names then are, which `dpconvert check` shows"
        )
    if dates := [name for name in found.classes if reads_date(name) and found.shape != "folders"]:
        yield (
            f"Classes that read as dates ({toml.some(map(repr, dates))}), which spreadsheets make of texts such as "
            "1-2: if so, correct the table; if they are classes, nothing need change"
        )
    if found.shape == "table" and (of_images := sorted(mask_files.masks_of(survey)) or mask_files.unpaired(survey)):
        yield (
            f"{counted(len(of_images), 'file')}, such as {of_images[0]}, are masks of the images, which the shape "
            "table does not keep. If labels are all that you want, nothing need change. To keep the masks, choose the "
            "shape slides: `slide` and `label` in [layout] name columns, `values` the classes of the masks, "
            "[files.annotations] the masks; and add a [rule] of the type whole and a table [dense.seg]. For masks "
            "alone, move the table away"
        )
    if found.shape in ("folders", "table") or labelled_masks.WHOLE in found.rule:
        yield from large.whole_slides(survey.source, survey.images)
    if found.shape == "folders" and not found.classes:
        yield from survey.not_read()
    if found.shape in ("folders", "masks"):
        yield from folds.unused(survey, found)
    yield from _stacks(survey, found)
    if found.shape == "folders" and (masks := mask_files.unpaired(survey)):
        yield (
            f"{counted(len(masks), 'file')} in folders of masks, such as {masks[0]}, which pair with no one image by "
            "the name of the file: if each is one object of an image, choose the shape masks with `objects = true`; if "
            "names repeat in several folders, let `name` take in the folder, as '(?P<name>[^/]+/[^/]+)' does"
        )


def _key(label: str) -> str:
    """A key that is equal for classes that may be one."""
    same = alike(label)
    return same if DECIMAL.fullmatch(same) else plain(same)


def _leave_out(found: Draft, labels: list[str]) -> str:
    """How a manifest of this shape leaves out what has these labels."""
    if found.shape == "folders":
        return " and out of the pattern of [files.images]"
    return f", and say skip = {toml.strings(labels)} in [layout]" if found.shape in ("table", "slides") else ""


def _stacks(survey: Survey, found: Draft) -> Iterator[str]:
    """Files that hold many images, or images with their labels, which the shape of the draft does not read.

    The shape folders reads none of them, whatever their names seem to tell; of others, nothing else told the labels.
    """
    if found.shape in ("slides", "table", "arrays", "parquet", "webdataset"):
        return
    if found.shape != "folders" and not found.questions:
        return
    for shape, kind in (("arrays", arrays.FILES["images"]), ("parquet", parquet.FILES["tables"])):
        pattern = re.compile(kind.pattern)
        held = [name for name in survey.images if pattern.search(name)]
        if held and (found.questions or found.shape == "folders"):  # which reads none of them
            yield f'{counted(len(held), "file")} such as {held[0]} may hold many images: see shape = "{shape}"'
    keys = {_sample(name) for name in survey.images}
    beside = [name for name in survey.names if SHARD.search(name) and (found.questions or _sample(name) in keys)]
    if beside:
        yield f'Fields such as {beside[0]} stand beside images in a tar, as in shards: see shape = "webdataset"'


def _sample(name: str) -> str:
    """The key of a member of a shard: its folder, and its name to the first point."""
    folder, _, base = name.rpartition("/")
    return f"{folder}/{base.partition('.')[0]}"


def task_name(root: Path) -> str:
    """'my cells_2' -> 'MyCells2': a name of a task that tells the folder."""
    words = re.findall(r"[A-Za-z0-9]+", unaccented(readable(escaped(root.resolve().name))))
    return "".join(word[:1].upper() + word[1:] for word in words) or "Task"
