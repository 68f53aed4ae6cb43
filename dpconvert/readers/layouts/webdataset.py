"""Shape "webdataset": tar shards from elsewhere, with an image and its label under one key.

[files.members] are the members of the shards. In their pattern, `name` is the key of a sample with its shard and
folder, `field` is what follows the first point of the member's name, and `split` may be part of the shard's name. Files
of one key in a folder are read like those in a tar. The format: https://github.com/webdataset/webdataset.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from dpconvert import names
from dpconvert.errors import ReadError, SourceError
from dpconvert.manifest.files import FileKind
from dpconvert.plural import counted
from dpconvert.readers.labels import ALL
from dpconvert.readers.layout_keys import Missing, SplitNames, layout_of
from dpconvert.readers.lone_groups import alone, notes_on_groups
from dpconvert.readers.values import InValues, Values, name_in
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile
from dpconvert.source.record import SourceImage

FILES = {
    "members": FileKind(
        pattern=r"(?i)^(?P<name>(?:.*/)?(?:(?P<split>train|valid(?:ation)?|val|dev|test)(?=[-_.])[^/]*"
        r"|[^/]*)\.(?:tar|tgz|tar\.(?:gz|bz2|xz))/(?:.*/)?[^/.]+)\.(?P<field>[^/]+)$",
        what="members of shards",
        example="train-000000.tar/patient1_0001.png",
    ),
}
SUFFIXES = ["png", "jpg", "jpeg", "webp", "tif", "tiff", "bmp"]
MOST = 1 << 20  # bytes of a label
TO_LAST_POINT = r"^(?P<name>.+)\.(?P<field>[^/.]+)$"


def may_be_image(field: str) -> bool:
    """Whether a field may hold an image: `png`, and `left.png`, which `image` in [layout] must name."""
    return field.lower().rpartition(".")[2] in SUFFIXES


class Layout(Values, SplitNames):
    """`[layout]` of a manifest of this shape."""

    image: list[str] = SUFFIXES
    """Fields that may hold the image; the first that a sample has is taken."""
    label: str = "cls"
    """Field of the label, or a member of a JSON field, such as `"json:case.grade"`. With kind `multilabel`, it holds a
    list, a text with `separator`, or members `{class: 0 or 1}`; a field `.npy` holds an array.
    """
    indicators: list[str] = []
    """Fields, or members of a JSON field, of 0 and 1 in place of `label`, one for each class in the order of `classes`,
    with kind `multilabel`.
    """
    value: str = ""
    """Field of the number, or a member of a JSON field, in place of `label`, with kind `regression`."""
    group: str = ""
    """Field of the patient or slide, or a member of a JSON field."""
    split: str = ""
    """Field of the split, or a member of a JSON field."""
    missing: Missing = "error"
    """Samples without an image or a label: `"error"` (or `false`) refuses them, `"skip"` (or `true`) leaves them out
    and counts them; `"none"` is refused.
    """


TARGETS = ALL


def images(source: Source) -> Iterator[SourceImage]:
    layout = layout_of(source.manifest, Layout)
    labels_in = InValues(source.manifest, layout)
    found: list[tuple[str, MatchedFile, dict[str, MatchedFile]]] = []
    rows: list[list[Any]] = []
    more: Counter[tuple[str, str]] = Counter()
    without = without_group = 0
    for key, fields in _samples(source).items():
        present = [fields[name.lower()] for name in layout.image if name.lower() in fields]
        named = {image.name for image in present}
        others = [one for field, one in fields.items() if may_be_image(field) and one.name not in named]
        more.update((present[0]["field"], other["field"]) for other in [*present[1:], *others] if present)
        row = [_value(source, fields, place) for place in labels_in.places]
        if layout.missing == "error":
            _check_complete(key, fields, bool(present), dict(zip(labels_in.places, row, strict=True)), layout)
        if present:
            found.append((key, present[0], fields))
            rows.append(row)
        without += not present
    labels = labels_in.labels(list(zip(*rows, strict=True)), lambda number: found[number][0])
    source.notes += [f"{counted(without, 'sample')} without an image, left out"] if without else []
    source.notes += labels_in.notes("sample")
    source.notes += [
        f"not used: the field {other!r} of {counted(n, 'sample')}, whose image is {taken!r} (`image` in [layout])"
        for (taken, other), n in sorted(more.items())
    ]
    for (key, image, fields), label in zip(found, labels, strict=True):
        if label is not None:
            split = layout.set_of(_text(source, fields, layout.split) or image.get("split"), image.name)
            group = _text(source, fields, layout.group) or image.get("group") or image.name
            found_image = SourceImage(key, (image.name,), group, label=label, split=split)
            without_group += alone(found_image, layout.group)
            yield found_image
    source.notes += [*notes_on_groups(without_group, "sample"), *layout.unmet()]


def _check_complete(
    key: str, fields: dict[str, MatchedFile], has_image: bool, row: dict[str, Any], layout: Layout
) -> None:
    lacking = next((place for place, value in row.items() if value is None), "")
    if not has_image or lacking:
        raise SourceError(
            f"a sample without {'a label' if has_image else 'an image'}",
            where=key,
            found=", ".join(fields),
            expected=lacking if has_image else " or ".join(layout.image),
            remedy=_remedy([] if has_image else list(filter(may_be_image, fields)), fields),
        )


def _remedy(images: list[str], fields: Iterable[str]) -> str:
    """Return what to do about a sample that lacks a field; images: fields that may be its image under another name."""
    if not images:
        return "if such samples are to be left out, say `missing = true` in [layout]"
    if len({field.rpartition(".")[2] for field in fields}) < len({*fields}):
        return f"if keys contain points, end them at the last one under [files.members]: pattern = '{TO_LAST_POINT}'"
    return f"if one of its fields is the image, name it in [layout]: image = {json.dumps(images[:1])}"


def _samples(source: Source) -> dict[str, dict[str, MatchedFile]]:
    """Key -> field, in lower case, -> file."""
    samples: dict[str, dict[str, MatchedFile]] = {}
    for found in source.need("members"):
        known = samples.setdefault(found["name"], {}).setdefault(found["field"].lower(), found)
        if known is not found:
            raise SourceError("two fields of one name in a sample", where=found.name, found=known.name)
    return samples


def _text(source: Source, fields: dict[str, MatchedFile], wanted: str) -> str:
    """Return what a field, or a member of a JSON field, says as text; '' for nothing."""
    value = _value(source, fields, wanted) if wanted else None
    if isinstance(value, dict | list):
        raise SourceError(
            f"{wanted.partition(':')[2] or wanted!r} is not a single value", where=next(iter(fields.values())).name
        )
    return name_in(value)


def _value(source: Source, fields: dict[str, MatchedFile], wanted: str) -> Any:
    """Return the value of a field, or of a member of a JSON field; None for nothing."""
    field, _, path = wanted.partition(":")
    found = fields.get(field.lower())
    if found is None:
        return None
    if source.sizes[found.name] > MOST:
        raise ReadError(f"a label of more than {MOST} bytes", where=found.name)
    data = source.read(found.name)
    if field.lower().endswith("npy"):
        return _array(data, found.name)
    try:
        text = data.decode("utf-8-sig").strip()
        if path:
            return _member(json.loads(text), path)
    except (UnicodeError, ValueError, RecursionError):
        raise ReadError("not JSON" if path else "not text", where=found.name, expected="UTF-8") from None
    return _of_json(text) if text[:1] in ("[", "{", '"') else names.nfc(text) or None


def _of_json(text: str) -> Any:
    """Return the list, the members or the text that a text states as JSON; the text itself if it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return names.nfc(text)


def _array(data: bytes, where: str) -> Any:
    """Return the numbers of a file of NumPy as a list, or the single one."""
    try:
        values = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ReadError(f"cannot be read as an array: {error}", where=where, remedy="fetch it again") from None
    return values.reshape(-1).tolist() if values.size != 1 or values.ndim else values.item()


def _member(value: Any, path: str) -> Any:
    for part in path.split("."):
        named = names.match(part, value) if isinstance(value, dict) else None
        value = None if named is None else value[named]
    return value
