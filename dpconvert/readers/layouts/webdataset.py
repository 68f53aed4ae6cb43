"""Shape "webdataset": tar shards from elsewhere, with an image and its label under one key.

[files.members] are the members of the shards. In their pattern, `name` is the key of a sample with its shard and
folder, `field` is what follows the first point of the member's name, and `split` may be part of the shard's name. Files
of one key in a folder are read like those in a tar. The format: https://github.com/webdataset/webdataset.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from dpconvert import names
from dpconvert.errors import ReadError, SourceError
from dpconvert.manifest.files import FileKind
from dpconvert.plural import counted
from dpconvert.readers.layouts.arrays import class_names
from dpconvert.readers.pairing import Missing, SplitNames, layout_of, refuse_missing_none
from dpconvert.source.files import MatchedFile, Source
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


class Layout(SplitNames):
    """`[layout]` of a manifest of this shape."""

    image: list[str] = SUFFIXES
    """Fields that may hold the image; the first that a sample has is taken."""
    label: str = "cls"
    """Field of the label, or a member of a JSON field, such as `"json:case.grade"`."""
    values: dict[str, str] = {}
    """Label -> class name."""
    group: str = ""
    """Field of the patient or slide, or a member of a JSON field."""
    split: str = ""
    """Field of the split, or a member of a JSON field."""
    missing: Missing = "error"
    """Samples without an image or a label: `"error"` (or `false`) refuses them, `"skip"` (or `true`) leaves them out
    and counts them; `"none"` is refused.
    """


def images(source: Source) -> Iterator[SourceImage]:
    layout = layout_of(source.manifest, Layout)
    refuse_missing_none(source.manifest, layout.missing)
    left_out: Counter[str] = Counter()
    found: list[tuple[str, MatchedFile, str, dict[str, str]]] = []
    more: Counter[tuple[str, str]] = Counter()
    for key, fields in _samples(source).items():
        present = [fields[name.lower()] for name in layout.image if name.lower() in fields]
        image = present[0] if present else None
        more.update((present[0]["field"], other["field"]) for other in present[1:])
        label = _told(source, fields, layout.label)
        missing = "an image" if image is None else "a label"
        if image is not None and label:
            about = {part: _told(source, fields, getattr(layout, part)) for part in ("group", "split")}
            found.append((key, image, label, about))
        elif layout.missing == "error":
            raise SourceError(
                f"a sample without {missing}", where=key, found=", ".join(fields),
                expected=" or ".join(layout.image) if image is None else layout.label,
                remedy="if such samples are to be left out, say `missing = true` in [layout]",
            )  # fmt: skip
        else:
            left_out[missing] += 1
    source.notes += [f"{counted(n, 'sample')} without {what}, left out" for what, n in sorted(left_out.items())]
    source.notes += [
        f"not used: the field {other!r} of {counted(n, 'sample')}, whose image is {taken!r} (`image` in [layout])"
        for (taken, other), n in sorted(more.items())
    ]
    labels = class_names([one[2] for one in found], layout.values, source.manifest.classes, str(source.root))
    for (key, image, _, about), label in zip(found, labels, strict=True):
        split = layout.set_of(about["split"] or image.get("split"), image.name)
        group = about["group"] or image.get("group") or image.name
        yield SourceImage(key, (image.name,), group, label=label, split=split)


def _samples(source: Source) -> dict[str, dict[str, MatchedFile]]:
    """Key -> field, in lower case, -> file."""
    samples: dict[str, dict[str, MatchedFile]] = {}
    for found in source.need("members"):
        known = samples.setdefault(found["name"], {}).setdefault(found["field"].lower(), found)
        if known is not found:
            raise SourceError("two fields of one name in a sample", where=found.name, found=known.name)
    return samples


def _told(source: Source, fields: dict[str, MatchedFile], wanted: str) -> str:
    """What a field, or a member of a JSON field, says; '' for nothing."""
    field, _, path = wanted.partition(":")
    found = fields.get(field.lower())
    if not wanted or found is None:
        return ""
    if source.sizes[found.name] > MOST:
        raise ReadError(f"a label of more than {MOST} bytes", where=found.name)
    data = source.read(found.name)
    try:
        text = data.decode("utf-8-sig").strip()
        return names.nfc(text) if not path else _member(json.loads(text), path, found.name)
    except (UnicodeError, ValueError, RecursionError):
        raise ReadError("not JSON" if path else "not text", where=found.name, expected="UTF-8") from None


def _member(value: Any, path: str, where: str) -> str:
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, dict | list):
        raise SourceError(f"{path!r} is no single value", where=where)
    return "" if value is None else names.nfc(str(int(value) if isinstance(value, bool) else value)).strip()
