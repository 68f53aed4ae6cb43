"""Parquet files with a column of encoded images, as Hugging Face's `datasets` writes them.

Parquet compresses many rows together, so the images are copied once into an Arrow file in the cache, from which each
can be read separately. A column of images holds bytes, or structures whose field `bytes` holds them; nested lists of
samples are copied as PNG.
"""

from __future__ import annotations

import bisect
import itertools
import json
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpconvert import names
from dpconvert.errors import ReadError, SourceError
from dpconvert.source import pixel_lists

ROWS = 256  # read at once
BYTES = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
)  # types of a column that hold the bytes of an image
DAMAGED = (
    OSError,
    pa.ArrowException,
    KeyError,
    ValueError,
)  # raised by pyarrow for damaged files (found by experiment)


class ImageColumn:
    """The images of one column, by their numbers."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        with path.open("rb") as file:
            self._file = pa.ipc.open_file(pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
        sizes = (self._file.get_batch(number).num_rows for number in range(self._file.num_record_batches))
        self._ends = list(itertools.accumulate(sizes))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def empty(self) -> set[int]:
        """Return the numbers of the rows that hold no image."""
        starts = [0, *self._ends]
        nulls = (self._file.get_batch(batch).column(0).is_null() for batch in range(len(self._ends)))
        return {
            start + row
            for start, mask in zip(starts, nulls, strict=False)
            if mask.true_count
            for row, is_null in enumerate(mask.to_pylist())
            if is_null
        }

    def bytes_of(self, number: int) -> bytes:
        """Return one encoded image.

        Raises:
            ReadError: there is no row of this number, or the row holds no image.
        """
        if number >= len(self):
            raise ReadError("no image of this number", where=f"{self.name}/{number}", found=f"{len(self)} rows")
        batch = bisect.bisect_right(self._ends, number)
        row = number - (self._ends[batch - 1] if batch else 0)
        found = self._file.get_batch(batch).column(0)[row].as_py()
        if found is None:
            raise ReadError(
                "no bytes of an image in this row",
                where=f"{self.name}/{number}",
                remedy="if it holds paths, unpack the images beside it and use the shape `table`",
            )
        return bytes(found)


class Columns:
    """The columns of one file."""

    def __init__(self, path: Path, name: str, unpack: Callable[[str, Callable[[Path], None]], Path]) -> None:
        self.path, self.name, self._unpack = path, name, unpack
        self._images: dict[str, ImageColumn] = {}
        try:
            with path.open("rb") as file:  # pyarrow takes no path that is not UTF-8
                self.schema = pq.read_schema(file)
        except DAMAGED as error:
            raise ReadError(f"not a readable Parquet file: {error}", where=name, remedy="fetch it again") from None

    def images(self, column: str) -> ImageColumn:
        """Return a column of images.

        Raises:
            ReadError: the column does not exist, holds no images, or is damaged.
        """
        column = self._named(column)
        if column not in self._images:
            self._check(column)
            self._images[column] = ImageColumn(
                self._unpack(column, lambda to: self._write(column, to)), self._where(column)
            )
        return self._images[column]

    def values(self, column: str) -> list[Any]:
        """Return all values of a column that does not hold images.

        Raises:
            SourceError: the column does not exist.
            ReadError: the column is damaged.
        """
        column = self._named(column)
        self._check_name(column)
        try:
            with self.path.open("rb") as file:
                return list(pq.read_table(file, columns=[column]).column(0).to_pylist())
        except DAMAGED as error:
            raise ReadError(f"damaged: {error}", where=self._where(column), remedy="fetch it again") from None

    @property
    def rows(self) -> int:
        """The number of rows.

        Raises:
            ReadError: the file is damaged.
        """
        try:
            with self.path.open("rb") as file:
                return int(pq.read_metadata(file).num_rows)
        except DAMAGED as error:
            raise ReadError(f"damaged: {error}", where=self.name, remedy="fetch it again") from None

    def label_names(self, column: str) -> list[str]:
        """Return the class names of this column's numbers from Hugging Face's features; empty if they state none.

        The column holds such numbers, or lists of them.
        """
        try:
            feature = json.loads((self.schema.metadata or {})[b"huggingface"])["info"]["features"][self._named(column)]
            of_list = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
            label_names = of_list["names"]
        except (KeyError, ValueError, TypeError, IndexError, AttributeError):
            return []
        return [str(name) for name in label_names] if isinstance(label_names, list) else []

    def _named(self, column: str) -> str:
        """Return the column as the file spells its name: in another Unicode form or, where that leaves one, case."""
        return names.match(column, self.schema.names) or column

    def _where(self, column: str) -> str:
        return f"{self.name}/{column}"

    def _check_name(self, column: str) -> None:
        count = self.schema.names.count(column)
        if count == 0:
            raise SourceError(f"no column {column!r}", where=self.name, found=", ".join(self.schema.names))
        if count > 1:
            raise SourceError(f"{count} columns of the name {column!r}", where=self.name, remedy="rename one of them")

    def _check(self, column: str) -> None:
        self._check_name(column)
        kind = self.schema.field(column).type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if not pixel_lists.holds_pixels(kind) and not any(is_kind(kind) for is_kind in BYTES):
            raise SourceError(
                "no column of encoded images",
                where=self._where(column),
                found=str(kind),
                expected="bytes",
                remedy=f"lists are read if they hold rows of whole numbers; else {pixel_lists.REMEDY}"
                if pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType)
                else None,
            )

    def _write(self, column: str, path: Path) -> None:
        try:
            with self.path.open("rb") as source, pq.ParquetFile(source) as file, path.open("wb") as sink:
                schema = pa.schema([("image", pa.large_binary())])
                with pa.ipc.new_file(sink, schema) as writer:
                    row = 0
                    for batch in file.iter_batches(ROWS, columns=[column]):
                        values = batch.column(0)
                        if pixel_lists.holds_pixels(values.type):
                            values = pixel_lists.encoded(values, self._where(column), row)
                        row += len(values)
                        values = pc.struct_field(values, "bytes") if pa.types.is_struct(values.type) else values
                        writer.write_batch(pa.record_batch([values.cast(pa.large_binary())], schema=schema))
        except DAMAGED as error:
            if getattr(error, "errno", None) is not None:
                raise  # no fault of the file
            raise ReadError(f"damaged: {error}", where=self._where(column), remedy="fetch it again") from None
