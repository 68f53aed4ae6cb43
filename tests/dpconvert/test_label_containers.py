"""Labels of any number of classes, numbers and grades from every container: files written by the formats' libraries."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import h5py
import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset as wds
from PIL import Image

from dpconvert.errors import ManifestError, SourceError, UserError
from dpconvert.manifest.catalog import load
from dpconvert.readers import reader, with_defaults
from dpconvert.readers.labels import class_names
from dpconvert.source.files import Source
from tests.dpconvert.conftest import Answer

COUNT = 6
CLASSES = ["tumour", "stroma", "normal"]
BITS = [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 1]]
INDICES = [[index for index, bit in enumerate(row) if bit] for row in BITS]
NAMED = [[CLASSES[index] for index in row] for row in INDICES]
NUMBERS = [0.5, 2.0, -1.0, 1e-7, 1234.125, 3.0]
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 16, 16, 3), dtype=np.uint8)
Write = Callable[[Path], None]


def image(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS[number]).save(buffer, "PNG")
    return buffer.getvalue()


def parquet(**columns: Any) -> Write:
    table = {"image": [image(number) for number in range(COUNT)], **columns}
    return lambda source: pq.write_table(pa.table(table), source / "a.parquet")


def hugging(feature: Any, values: list[Any], column: str = "label") -> Write:
    features = datasets.Features({"image": datasets.Image(), column: feature})
    rows = {"image": [{"bytes": image(n), "path": None} for n in range(COUNT)], column: values}

    def write(source: Path) -> None:
        datasets.disable_progress_bars()
        datasets.Dataset.from_dict(rows, features).to_parquet(source / "a.parquet")

    return write


def hdf5(**arrays: Any) -> Write:
    def write(source: Path) -> None:
        with h5py.File(source / "a.h5", "w") as file:
            for name, values in {"x": PIXELS, **arrays}.items():
                file[name] = values

    return write


def stacks(labels: Any) -> Write:
    def write(source: Path) -> None:
        np.save(source / "x.npy", PIXELS)
        np.save(source / "y.npy", labels)

    return write


def shards(*fields: dict[str, Any]) -> Write:
    def write(source: Path) -> None:
        with wds.TarWriter(str(source / "a.tar")) as writer:
            for number, more in enumerate(fields):
                writer.write({"__key__": f"{number}", "png": image(number), **more})

    return write


def slides(rows: list[list[Any]]) -> Write:
    def write(source: Path) -> None:
        for number in range(COUNT):
            Image.fromarray(PIXELS[number]).save(source / f"{number}.tif")
        (source / "slides.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in rows))

    return write


def workbook(rows: list[list[Any]]) -> Write:
    def write(source: Path) -> None:
        for number in range(COUNT):
            (source / f"{number}.png").write_bytes(image(number))
        book = openpyxl.Workbook()
        for row in rows:
            book.active.append(row)
        book.save(source / "labels.xlsx")

    return write


def beside(rows: list[list[Any]]) -> Write:
    def write(source: Path) -> None:
        hdf5()(source)
        (source / "a.csv").write_text("".join(";".join(map(str, row)) + "\n" for row in rows))

    return write


NUMBERED = list(range(COUNT))
ARRAYS = 'shape = "arrays"\n'
PAIRED = '[files.images]\npattern = "(?P<name>)x.npy$"\n[files.labels]\npattern = "(?P<name>)y.npy$"\n'
TABLE = '[files.images]\npattern = "(?P<name>a).h5$"\n[files.table]\npattern = "(?P<name>a).csv$"\n'
COLUMNS = list(zip(*BITS, strict=True))
EACH = f"indicators = {json.dumps(CLASSES)}\n"
MANY: dict[str, tuple[Write, str]] = {
    "Parquet, lists of names": (parquet(label=NAMED), 'shape = "parquet"\n[layout]\nnone = [""]\n'),
    "Parquet, lists of numbers": (parquet(label=INDICES), 'shape = "parquet"\n[layout]\nnone = [""]\n'),
    "Parquet, lists of 0 and 1": (parquet(label=BITS), 'shape = "parquet"\n'),
    "Parquet, lists of floats": (parquet(label=np.array(BITS, float).tolist()), 'shape = "parquet"\n'),
    "Parquet, lists of booleans": (parquet(label=np.array(BITS, bool).tolist()), 'shape = "parquet"\n'),
    "Parquet, columns": (parquet(**dict(zip(CLASSES, COLUMNS, strict=True))), f'shape = "parquet"\n[layout]\n{EACH}'),
    "Parquet, texts": (
        parquet(label=["|".join(row) or "none" for row in NAMED]),
        'shape = "parquet"\n[layout]\nseparator = "|"\nnone = ["none"]\n',
    ),
    "Parquet, structures": (
        parquet(label=[dict(zip(CLASSES, row, strict=True)) for row in BITS]),
        'shape = "parquet"\n',
    ),
    "Hugging Face": (
        hugging(datasets.Sequence(datasets.ClassLabel(names=CLASSES[::-1])), [[2 - i for i in row] for row in INDICES]),
        'shape = "parquet"\n[layout]\nnone = [""]\n',
    ),
    "HDF5, rows of 0 and 1": (hdf5(y=np.array(BITS, np.uint8)), f'{ARRAYS}[layout]\nlabels = "y"\n'),
    "HDF5, texts": (
        hdf5(y=np.array([";".join(row) for row in NAMED], "S40")),
        f'{ARRAYS}[layout]\nlabels = "y"\nnone = [""]\n',
    ),
    "HDF5, an array for each class": (hdf5(**dict(zip(CLASSES, COLUMNS, strict=True))), f"{ARRAYS}[layout]\n{EACH}"),
    "NumPy": (stacks(np.array(BITS, bool)), ARRAYS + PAIRED),
    "HDF5 and a table": (
        beside([["n", *CLASSES], *([n, *row] for n, row in enumerate(BITS))]),
        f"{ARRAYS}{TABLE}[layout]\n{EACH}",
    ),
    "shards, JSON lists": (
        shards(*({"json": {"a": {"b": row}}} for row in NAMED)),
        'shape = "webdataset"\n[layout]\nlabel = "json:a.b"\nnone = [""]\n',
    ),
    "shards, JSON members": (
        shards(*({"json": dict(zip(CLASSES, map(bool, row), strict=True))} for row in BITS)),
        f'shape = "webdataset"\n[layout]\nindicators = {json.dumps([f"json:{name}" for name in CLASSES])}\n',
    ),
    "shards, an array": (
        shards(*({"y.npy": np.array(row)} for row in BITS)),
        'shape = "webdataset"\n[layout]\nlabel = "y.npy"\n',
    ),
    "shards, text": (
        shards(*({"txt": ";".join(map(str, row)) or "-"} for row in INDICES)),
        'shape = "webdataset"\n[layout]\nlabel = "txt"\nnone = ["-"]\n',
    ),
    "slides": (
        slides([["slide", "what"], *([f"{n}.tif", ";".join(row)] for n, row in enumerate(NAMED))]),
        'shape = "slides"\n[layout]\ngroup = ""\nlabel = "what"\nnone = [""]\n',
    ),
    "a workbook": (
        workbook([["n", *CLASSES], *([n, *row] for n, row in enumerate(BITS))]),
        f'shape = "table"\n[layout]\nfile = "{{n}}.png"\n{EACH}',
    ),
}
VALUES: dict[str, tuple[Write, str]] = {
    "Parquet": (parquet(score=NUMBERS), 'shape = "parquet"\n[layout]\nvalue = "score"\n'),
    "Parquet, texts": (parquet(score=list(map(str, NUMBERS))), 'shape = "parquet"\n[layout]\nvalue = "score"\n'),
    "Hugging Face": (hugging(datasets.Value("float64"), NUMBERS), 'shape = "parquet"\n[layout]\nvalue = "label"\n'),
    "HDF5": (hdf5(y=np.array(NUMBERS)), f'{ARRAYS}[layout]\nvalue = "y"\n'),
    "HDF5, a column": (hdf5(y=np.array(NUMBERS)[:, None]), f'{ARRAYS}[layout]\nvalue = "y"\n'),
    "NumPy": (stacks(np.array(NUMBERS)), ARRAYS + PAIRED),
    "HDF5 and a table": (
        beside([["n", "v"], *([n, str(v).replace(".", ",")] for n, v in enumerate(NUMBERS))]),
        f'{ARRAYS}{TABLE}[layout]\nvalue = "v"\ndecimal = ","\n',
    ),
    "shards": (
        shards(*({"json": {"v": value}} for value in NUMBERS)),
        'shape = "webdataset"\n[layout]\nvalue = "json:v"\n',
    ),
    "shards, text": (
        shards(*({"cls": str(value)} for value in NUMBERS)),
        'shape = "webdataset"\n[layout]\nvalue = "cls"\n',
    ),
    "slides": (
        slides([["slide", "v"], *([n, v] for n, v in enumerate(NUMBERS))]),
        'shape = "slides"\n[layout]\ngroup = ""\nvalue = "v"\n',
    ),
    "a workbook": (
        workbook([["n", "v"], *([n, v] for n, v in enumerate(NUMBERS))]),
        'shape = "table"\n[layout]\nfile = "{n}.png"\nvalue = "v"\n',
    ),
}
APART = "classe e\u0301"
GRADES = [0, 2, 1, 1, 2, 0]
ORDERED: dict[str, tuple[Write, str]] = {
    "Parquet": (parquet(label=GRADES), 'shape = "parquet"\n'),
    "HDF5": (hdf5(y=np.array(GRADES)), f'{ARRAYS}[layout]\nlabels = "y"\n'),
    "HDF5, one of three": (hdf5(y=np.eye(3)[GRADES]), f'{ARRAYS}[layout]\nlabels = "y"\n'),
    "shards": (shards(*({"cls": grade} for grade in GRADES)), 'shape = "webdataset"\n'),
    "slides": (
        slides([["slide", "g"], *([n, CLASSES[grade]] for n, grade in enumerate(GRADES))]),
        'shape = "slides"\n[layout]\ngroup = ""\nlabel = "g"\n',
    ),
}


def labels(folder: Path, kind: str, write: Write, text: str) -> list[Any]:
    """What the reader says of each image, in their order, as JSON reads it."""
    source = folder / "source"
    source.mkdir(exist_ok=True)
    write(source)
    classes = "" if kind == "regression" else f"classes = {json.dumps(CLASSES)}\n"
    (folder / "my.toml").write_text(f'task = "My"\nkind = "{kind}"\n{classes}{text}')
    manifest = with_defaults(load(folder / "my.toml"))
    found = list(reader(manifest).images(Source.open(source, manifest)))
    assert all(one.label is not None for one in found)
    return [one.label if kind == "ordinal" else json.loads(one.label or "") for one in found]


@pytest.mark.parametrize("form", MANY)
def test_any_number_of_classes_is_read_in_every_form_of_every_container(form: str, tmp_path: Path) -> None:
    assert labels(tmp_path, "multilabel", *MANY[form]) == [sorted(row) for row in NAMED]


@pytest.mark.parametrize("form", VALUES)
def test_numbers_are_read_exactly_from_every_container(form: str, tmp_path: Path) -> None:
    assert labels(tmp_path, "regression", *VALUES[form]) == NUMBERS


@pytest.mark.parametrize("form", ORDERED)
def test_grades_keep_their_order_in_every_container(form: str, tmp_path: Path) -> None:
    assert labels(tmp_path, "ordinal", *ORDERED[form]) == [CLASSES[grade] for grade in GRADES]


WRONG: dict[str, tuple[str, Write, str, str]] = {
    "a number of a class": (
        "regression",
        hugging(datasets.ClassLabel(names=CLASSES), GRADES),
        'value = "label"',
        "numbers of classes, not measured ones; found tumour, stroma, normal",
    ),
    "a number of an enumerated type": (
        "regression",
        hdf5(v=np.arange(COUNT).astype(h5py.enum_dtype({"low": 0, "high": 1}, "i1")) % 2),
        'value = "v"',
        "numbers of classes, not measured ones; found low, high",
    ),
    "NaN": ("regression", parquet(v=[1.0, float("nan"), 2, 3, 4, 5]), 'value = "v"', "a.parquet, row 1: no number"),
    "infinity": ("regression", parquet(v=[1.0, float("inf"), 2, 3, 4, 5]), 'value = "v"', "row 1: not a number: 'inf'"),
    "a truth value": ("regression", parquet(v=[True] * COUNT), 'value = "v"', "not a number: True"),
    "no column": ("regression", parquet(label=NUMBERS), "", "layout.value: is missing"),
    "a class": ("classification", parquet(label=NUMBERS), "", "a label that is not a whole number; found 0.5"),
    "below": ("classification", parquet(label=[-2] * COUNT), "", "a negative number as a label; found -2; name it"),
    "lists": ("classification", parquet(label=NAMED), "", 'state kind = "multilabel"'),
    "one": ("multilabel", parquet(label=GRADES), "", "a single number, where a list or a text of classes is expected"),
    "none": ("multilabel", parquet(label=NAMED), "", "a.parquet, row 2: no label"),
    "shares": ("multilabel", parquet(label=[[0.2, 0.8, 0.8]] * COUNT), "", "neither 0 nor 1: '0.2'"),
    "beyond": ("multilabel", parquet(label=[[0, 3]] * COUNT), "", "a label beyond the manifest's classes; expected 0"),
    "too few": ("multilabel", parquet(label=[[0, 0]] * COUNT), "", "2 values of 0 and 1 for 3 classes"),
    "members": ("multilabel", parquet(label=[{"tumour": 1, "stroma": 0}] * COUNT), "", "not the manifest's classes"),
    "two keys": (
        "multilabel",
        parquet(label=NAMED),
        f'label = "label"\n{EACH}',
        "`label` and `indicators` exclude each other",
    ),
    "idle": ("regression", parquet(v=NUMBERS), 'value = "v"\nvalues = {a = "b"}', "layout.values: not read with kind"),
}


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (
            parquet(**{APART: [CLASSES[grade] for grade in GRADES]}),
            'shape = "parquet"\n[layout]\nlabel = "Classe \u00e9"\n',
        ),
        (
            hugging(datasets.ClassLabel(names=CLASSES[::-1]), [2 - grade for grade in GRADES], APART),
            'shape = "parquet"\n[layout]\nlabel = "classe \u00e9"\n',
        ),
        (
            shards(*({"json": {APART: CLASSES[grade]}} for grade in GRADES)),
            'shape = "webdataset"\n[layout]\nlabel = "json:classe \u00e9"\n',
        ),
    ],
    ids=["parquet", "names in parquet", "json"],
)
def test_columns_and_members_are_found_in_another_unicode_form(write: Write, text: str, tmp_path: Path) -> None:
    assert labels(tmp_path, "ordinal", write, text) == [CLASSES[grade] for grade in GRADES]


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_such_label_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    kind, write, layout, told = WRONG[case]
    shape = "arrays" if case == "a number of an enumerated type" else "parquet"
    with pytest.raises((ManifestError, SourceError)) as caught:
        labels(tmp_path, kind, write, f'shape = "{shape}"\n[layout]\n{layout}\n')
    assert told in str(caught.value)


def test_lists_that_seem_to_differ_between_files_are_refused_until_the_manifest_says_what_they_hold(
    tmp_path: Path,
) -> None:
    def write(source: Path) -> None:
        parquet(label=BITS)(source)
        (source / "a.parquet").rename(source / "b.parquet")
        parquet(label=[[0], [1], [0, 1], [2], [0], [1]])(source)

    with pytest.raises(SourceError, match="lists of indicators, while those of the files before are indices"):
        labels(tmp_path, "multilabel", write, 'shape = "parquet"\n')


def test_values_that_say_that_there_is_none_can_be_left_out(tmp_path: Path) -> None:
    numbers = [1.5, -1.0, None, 4.0, float("nan"), 6.0]
    layout = '[layout]\nvalue = "v"\nskip = ["-1"]\nmissing = true\n'
    assert labels(tmp_path, "regression", parquet(v=numbers), 'shape = "parquet"\n' + layout) == [1.5, 4, 6]
    manifest = with_defaults(load(tmp_path / "my.toml"))
    source = Source.open(tmp_path / "source", manifest)
    list(reader(manifest).images(source))
    assert source.notes[-2:] == ["1 row that `skip` names, left out", "2 rows without a label, left out"]


def groups(tmp_path: Path, write: Write, manifest: str) -> list[str]:
    labels(tmp_path, "ordinal", write, manifest)
    read = with_defaults(load(tmp_path / "my.toml"))
    return [found.group for found in reader(read).images(Source.open(tmp_path / "source", read))]


def test_one_patient_is_one_group_whatever_the_type_of_its_number(tmp_path: Path) -> None:
    """A column of whole numbers with a gap becomes one of floating-point numbers in pandas, in this file or another."""

    def write(source: Path) -> None:
        parquet(label=GRADES, patient=[7, 7, 8, 8, 9, 9])(source)
        (source / "a.parquet").rename(source / "b.parquet")
        parquet(label=GRADES, patient=[7.0, 7.0, 8.0, 8.0, float("nan"), None])(source)

    found = groups(tmp_path, write, 'shape = "parquet"\n[layout]\ngroup = "patient"\n')
    assert found == ["7", "7", "8", "8", "a.parquet/image/4", "a.parquet/image/5", "7", "7", "8", "8", "9", "9"]


def test_one_patient_is_one_group_whatever_the_form_of_its_number_in_json(tmp_path: Path) -> None:
    told = [{"label": 0, "patient": patient} for patient in (7, 7.0, "7", 8, float("nan"), None)]
    write = shards(*({"json": json.dumps(one)} for one in told))
    layout = '[layout]\nlabel = "json:label"\ngroup = "json:patient"\n'
    assert groups(tmp_path, write, 'shape = "webdataset"\n' + layout)[:4] == ["7", "7", "7", "8"]
    found = groups(tmp_path, write, 'shape = "webdataset"\n' + layout)[4:]
    assert len(set(found)) == 2
    assert not {"nan", "None"} & set(found)


def test_texts_of_another_encoding_than_utf8_stay_apart(tmp_path: Path) -> None:
    patients = np.array([b"M\xfcller", b"M\xf6ller", "Müller".encode(), b"A\x81", b"A\x8d", b"B"])
    write = hdf5(y=np.arange(COUNT) % 3, patient=patients)
    found = groups(tmp_path, write, 'shape = "arrays"\n[layout]\nimages = "x"\nlabels = "y"\ngroup = "patient"\n')
    assert found == ["Müller", "Möller", "Müller", "A%81", "A%8D", "B"]


@pytest.mark.parametrize("shape", ["points", "masks"])
def test_shapes_without_labels_of_whole_images_refuse_other_kinds_in_one_line(
    shape: str, tmp_path: Path, dpconvert: Callable[..., Answer]
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "my.toml").write_text(f'task = "My"\nkind = "regression"\nshape = "{shape}"\n')
    answer = dpconvert("check", tmp_path / "my.toml", "--source", tmp_path / "source")
    told = f"kind 'regression': the shape '{shape}' reads one class for an image only; use one of the shapes arrays, "
    assert (answer.code, told in answer.err) == (1, True), answer.err


def test_a_converted_task_holds_what_the_file_says_and_a_slide_gives_its_number_to_its_tiles(
    tmp_path: Path, dpconvert: Callable[..., Answer]
) -> None:
    rule = '[rule]\ntype = "tiles"\nsize = 8\n[split.strict]\nshare = [1, 1, 0]\n'
    with pytest.raises(UserError):
        labels(tmp_path, "regression", slides([["slide", "v"], ["0.tif", "x"]]), VALUES["slides"][1] + rule)
    labels(tmp_path, "regression", VALUES["slides"][0], VALUES["slides"][1] + rule)
    answer = dpconvert(
        tmp_path / "my.toml", "--source", tmp_path / "source", "--out", tmp_path / "out", "--workers", 1, "-q"
    )
    assert (answer.code, answer.err) == (0, "")
    rows = pq.read_table(tmp_path / "out" / "My" / "index.parquet").to_pylist()
    assert sorted((row["source"], row["value"]) for row in rows) == sorted(
        (f"{number}.tif", NUMBERS[number]) for number in range(COUNT) for _ in range(4)
    )
    assert dpconvert("verify", tmp_path / "out", "-q").code == 0


def test_a_number_is_not_counted_where_classes_are_called_by_other_numbers() -> None:
    """Of the labels 0, 1 and 2, the first was the class '1', as the second was by its name."""
    assert class_names(["1", "3"], {}, ["1", "2", "3"], "x") == ["1", "3"]
    assert class_names(["0", "2"], {}, ["0", "1", "2"], "x") == ["0", "2"]
    assert class_names(["0", "1"], {}, ["a", "b"], "x") == ["a", "b"]
    with pytest.raises(
        ManifestError, match=r"number 0 is none of the classes, whose names are numbers.*1, 2, 3.*values"
    ):
        class_names(["0", "1"], {}, ["1", "2", "3"], "x")
    assert class_names(["0", "1"], {"0": "3", "1": "4"}, ["3", "4"], "x") == ["3", "4"]
