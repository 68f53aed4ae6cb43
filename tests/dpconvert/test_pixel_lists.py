"""Parquet columns of nested lists of samples, against the arrays that they were made of."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dpconvert.errors import ReadError, SourceError
from dpconvert.source.arrays.columns import Columns

COLOURS = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)


def images(path: Path, column: str = "image") -> list[Any]:
    def unpack(_: str, write: Any) -> Path:
        write(path.parent / "copy.arrow")
        return path.parent / "copy.arrow"

    found = Columns(path, "a.parquet", unpack).images(column)
    return [np.asarray(Image.open(io.BytesIO(found.bytes_of(number)))) for number in range(len(found))]


def stored(tmp_path: Path, values: list[Any], kind: pa.DataType | None = None) -> Path:
    pq.write_table(pa.table({"image": pa.array(values, kind)}), tmp_path / "a.parquet")
    return tmp_path / "a.parquet"


@pytest.mark.parametrize("kind", [pa.uint8(), pa.int64(), None])
@pytest.mark.parametrize("first", [False, True])
def test_nested_lists_of_samples_are_images(first: bool, kind: pa.DataType | None, tmp_path: Path) -> None:
    values = (np.moveaxis(COLOURS, 3, 1) if first else COLOURS).tolist()
    listed = None if kind is None else pa.list_(pa.list_(pa.list_(kind)))
    assert np.array_equal(images(stored(tmp_path, values, listed)), COLOURS)
    assert np.array_equal(images(stored(tmp_path, COLOURS[:, :, :, 0].tolist())), COLOURS[:, :, :, 0])


def test_arrays_of_hugging_face_are_images(tmp_path: Path) -> None:
    datasets.disable_progress_bars()
    features = datasets.Features({"image": datasets.Array3D((6, 7, 3), "uint8")})
    datasets.Dataset.from_dict({"image": COLOURS}, features).to_parquet(tmp_path / "a.parquet")
    assert np.array_equal(images(tmp_path / "a.parquet"), COLOURS)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([[[1, 2, 3], [4, 5]]], "a.parquet/image/0: lists that are no image"),
        ([[[1, 2, 3], [4, 5, 256]]], "no samples of 8 bits in lists; expected 0 to 255; found 1 to 256"),
        (np.ones((3, 5, 3), int).tolist(), "not clear which axis is of channels; .*found 3 x 5 x 3"),
        (np.ones((5, 5, 2), int).tolist(), "not clear which axis is of channels"),
    ],
)
def test_lists_that_are_no_images_are_refused(value: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=said):
        images(stored(tmp_path, [value]))


def test_lists_of_fractions_and_flat_lists_are_refused(tmp_path: Path) -> None:
    for value in ([[0.5, 1.0]], [1, 2, 3]):
        with pytest.raises(SourceError, match="lists are read if they hold rows of whole numbers"):
            images(stored(tmp_path, [value]))
