"""The faults of manifests and of JSON files, in words."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from dpconvert.annotations.parsing.json_text import Loose, parsed
from dpconvert.errors import ReadError
from dpconvert.manifest.model import Manifest
from dpconvert.readers.layouts.table import Layout
from dpconvert.validation_errors import first_fault

TOY: dict[str, Any] = {"name": "toy", "task": "Toy", "classes": ["a", "b"]}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"clases": ["a"]}, "clases: is not known here (did you mean 'classes'?)"),
        ({"obtain": {"archives": [{"name": "a", "urll": ""}]}}, "urll: is not known here (did you mean 'url'?)"),
        ({"rule": {"type": "tiles", "size": 5, "shar": 1}}, "(known: mpp, overlap, own_tiles, size, stored, type)"),
        ({"rule": {"type": "area", "ignor": [], "size": 5, "share": 0, "positive": ["a"]}}, "(did you mean 'ignore'?)"),
        ({"rule": {"type": "tile", "size": 5}}, "(did you mean 'tiles'?)"),
        ({"rule": {"size": 5}}, "rule: needs 'type'"),
        ({"mpp": "half"}, "mpp: must be a number"),
        ({"mpp": 50}, "mpp: must be at most 10"),
        ({"classes": "a"}, "classes: must be a list"),
        ({"licence": "CC0"}, "licence: must be a table of keys and values"),
        ({"split": {"strict": {"share": [1, 2]}}}, "split.strict.share.2: is missing"),
        ({"pixels": {"range": [0, float("inf")]}}, "pixels.range.1: must be a finite number"),
        ({"split": {"strict": {"share": [float("nan"), 0, 0]}}}, "split.strict.share.0: must be a finite number"),
        ({"image": {"format": "gif"}}, "image.format: must be 'png' or 'jpeg'"),
    ],
)
def test_a_manifest_s_first_fault_is_reported_with_the_nearest_key(more: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Manifest.model_validate(TOY | more)
    assert told in str(first_fault(raised.value, Manifest))


def test_a_missing_key_is_reported_with_the_unknown_ones_beside_it() -> None:
    """No nearest key: `image` does not look like `file`."""
    with pytest.raises(ValidationError) as raised:
        Layout.model_validate({"image": "{image}", "label": "label"})
    assert str(first_fault(raised.value, Layout)) == "file: is missing, and not known here: 'image'"


def test_an_unknown_key_beside_a_missing_one_is_reported_with_the_nearest() -> None:
    with pytest.raises(ValidationError) as raised:
        Manifest.model_validate(TOY | {"dense": {"seg": {"label": ["a"]}}})
    told = "dense.seg.classes: is missing, and not known here: 'label' (did you mean 'labels'?)"
    assert str(first_fault(raised.value, Manifest)) == told


def test_a_pattern_is_shown_as_it_is_written() -> None:
    with pytest.raises(ValidationError) as raised:
        Manifest.model_validate(TOY | {"files": {"images": {"pattern": r"(?P<name>\d+\.png"}}})
    assert first_fault(raised.value, Manifest).found == r"'(?P<name>\d+\.png'"


class Item(Loose):
    """Of the test."""

    category_id: int
    bbox: list[float]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'{"categoryid": 1, "bbox": [1]}', "category_id: is missing (did you mean 'categoryid'?)"),
        (b'{"category_id": "x", "bbox": [1]}', "category_id: must be a whole number; found 'x'"),
        (b'{"category_id": 1, "bbox": {"x": 1}}', "bbox: must be a list"),
        (b'{"category_id": 1', "not JSON: "),
    ],
)
def test_a_json_file_s_first_fault_is_reported_in_the_same_words(data: bytes, told: str) -> None:
    with pytest.raises(ReadError) as raised:
        parsed(data, "a.json", TypeAdapter(Item))
    assert told in str(raised.value)
