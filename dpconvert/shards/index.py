"""The index of a task, index.parquet: one row per sample, with the places of its image and its mask in a tar."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dpconvert.card import FileCard, Split
from dpconvert.runtime.atomic import replaced

if TYPE_CHECKING:  # imported where an index is written or read: it takes 45 MiB, which workers do not need
    import pyarrow as pa


INDEX_COLUMNS = {
    "key": "string",
    "split": "string",
    "shard": "string",
    "offset": "int64",
    "length": "int64",
    "format": "string",
    "label": "int32",
    "group": "string",
    "source": "string",
    "x": "int32",
    "y": "int32",
    "width": "int32",
    "height": "int32",
    "stored_width": "int32",
    "stored_height": "int32",
    "sha256": "string",
    "attributes": "string",  # JSON object of strings
}
SEG_COLUMNS = {"seg_offset": "int64", "seg_length": "int64", "seg_sha256": "string"}  # for tasks with masks
OBJECT_COLUMNS = {"objects": "int32"}  # for tasks with points or boxes
TARGET_COLUMNS = {"labels": "list<int32>", "value": "float64"}  # in place of `label`: of several labels, of a number
DENSE_COLUMNS = SEG_COLUMNS | OBJECT_COLUMNS
ROW_GROUP = 1 << 20  # rows of the index
NO_CLASS = -1  # `label` of an entry whose target is not one class


class Entry(NamedTuple):
    """One row of the index; offset and length are those of the image's bytes in the tar.

    seg_offset, seg_length and seg_sha256 are those of the mask; `objects` is the number of points and boxes.
    target: the labels or the value as JSON, if the sample does not have one class; `label` is then NO_CLASS.
    """

    key: str
    split: Split
    shard: str
    offset: int
    length: int
    format: str
    label: int
    group: str
    source: str
    x: int
    y: int
    width: int
    height: int
    stored_width: int
    stored_height: int
    sha256: str
    attributes: str
    seg_offset: int = -1
    seg_length: int = 0
    seg_sha256: str = ""
    objects: int = 0
    target: str = ""

    @classmethod
    def checked(cls, values: Sequence[Any]) -> Entry:
        """Return the entry with these values. Raises ValueError if their types are wrong."""
        if tuple(map(type, values)) != ENTRY_TYPES:
            raise ValueError("not an entry of an index")
        return cls(*values)


ENTRY_TYPES = (*(str if kind == "string" else int for kind in (INDEX_COLUMNS | DENSE_COLUMNS).values()), str)


def write_index(path: Path, entries: Sequence[Entry], more: Collection[str] = ()) -> FileCard:
    """Write index.parquet, with the rows in the given order. more: its columns that not all tasks have."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, starts = index_schema(more), range(0, len(entries), ROW_GROUP)
    batches = [_batch(entries[start : start + ROW_GROUP], schema) for start in starts]
    table = pa.Table.from_batches(batches, schema=schema)
    with replaced(path) as file:
        pq.write_table(table, file, compression="zstd", row_group_size=ROW_GROUP)
    return file_card(path)


def _batch(entries: Sequence[Entry], schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    columns: dict[str, Sequence[Any]] = dict(zip(Entry._fields, zip(*entries, strict=True), strict=True))
    for name in TARGET_COLUMNS.keys() & set(schema.names):
        columns[name] = [json.loads(text) for text in columns["target"]]
    arrays = [_array(columns[field.name], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Build a column from buffers: `pa.array` would import pandas if it is installed, which takes another 50 MiB."""
    import pyarrow as pa

    if pa.types.is_list(kind):
        ends = np.cumsum([0, *map(len, values)]).astype(np.int32)
        items = _array([item for some in values for item in some], kind.value_type)
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(ends)], children=[items])
    if kind != pa.string():
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.array(values, str(kind)))])
    texts = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, texts)]).astype(np.int32)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(texts))])


def index_schema(more: Collection[str] = ()) -> pa.Schema:
    """Return the names and types of the index's columns. more: those that not all tasks have. `labels` and `value` take
    the place of `label`.
    """
    import pyarrow as pa

    of_target = {name: kind for name, kind in TARGET_COLUMNS.items() if name in more}
    dense = {name: kind for name, kind in DENSE_COLUMNS.items() if name in more}
    kinds: dict[str, str] = {}
    for name, kind in (INDEX_COLUMNS | dense).items():
        kinds |= of_target if name == "label" and of_target else {name: kind}
    return pa.schema([pa.field(n, pa.list_(pa.int32()) if k == "list<int32>" else k) for n, k in kinds.items()])


def read_index(path: Path) -> Any:
    """Read the index as a pyarrow table, with its columns of dense targets."""
    import pyarrow.parquet as pq

    with path.open("rb") as file:  # pyarrow takes no path that is not UTF-8
        return pq.read_table(file, schema=index_schema(pq.read_schema(file).names))


def file_card(path: Path) -> FileCard:
    """Return the name, size and sha256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileCard(name=path.name, size=path.stat().st_size, sha256=digest)
