"""`dpconvert init` on files that hold images with their labels: Parquet, HDF5, NumPy and tars, of four kinds of label.

The files are written by the formats' own libraries; what is converted by the draft is compared with what was written.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset as wds
from PIL import Image

from dpconvert.shards.index import read_index
from tests.dpconvert.conftest import Answer

COUNT = 12
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 16, 16, 3), dtype=np.uint8)
NAMES = [("normal", "tumour")[number % 2] for number in range(COUNT)]
PATIENTS = [f"P{number // 2}" for number in range(COUNT)]
NUMBERS = [0.25 + 1.5 * number for number in range(COUNT)]
LISTS = [[["a"], ["a", "b"], [], ["c"]][number % 4] for number in range(COUNT)]
GRADES = [1 + number % 3 for number in range(COUNT)]
Call = Callable[..., Answer]
Write = Callable[[Path], object]


def image(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS[number]).save(buffer, "PNG")
    return buffer.getvalue()


def parquet(**columns: Any) -> Write:
    table = {"image": [{"bytes": image(number), "path": None} for number in range(COUNT)], **columns}
    return lambda folder: pq.write_table(pa.table(table), folder / "train.parquet")


def hugging(folder: Path) -> None:
    """As `datasets` writes a class: numbers, and their names beside them."""
    datasets.disable_progress_bars()
    label = datasets.ClassLabel(names=["normal", "tumour"])
    rows = {
        "image": [{"bytes": image(n), "path": None} for n in range(COUNT)],
        "label": [n % 2 for n in range(COUNT)],
        "patient": PATIENTS,
    }
    features = datasets.Features({"image": datasets.Image(), "label": label, "patient": datasets.Value("string")})
    datasets.Dataset.from_dict(rows, features).to_parquet(folder / "a.parquet")


def hugging_twice(folder: Path) -> None:
    """Two classes, of which one is called the label: the names of both stand beside the numbers."""
    features = {"image": datasets.Image(), "grain": datasets.ClassLabel(names=["coarse", "fine"])}
    features["label"] = datasets.ClassLabel(names=["tumour", "normal"])
    rows = {
        "image": [{"bytes": image(n), "path": None} for n in range(COUNT)],
        "label": [1 - n % 2 for n in range(COUNT)],
        "grain": [n // 2 % 2 for n in range(COUNT)],
    }
    datasets.Dataset.from_dict(rows, datasets.Features(features)).to_parquet(folder / "a.parquet")


def hdf5(**arrays: Any) -> Write:
    def write(folder: Path) -> None:
        with h5py.File(folder / "all.h5", "w") as file:
            for name, values in {"images": PIXELS, **arrays}.items():
                file[name] = values

    return write


def in_folders(ending: str, folder: str, **columns: Any) -> Write:
    """A file for each class, in a folder that only its name tells."""

    def write(root: Path) -> None:
        for name in ("normal", "tumour"):
            chosen = [n for n in range(COUNT) if NAMES[n] == name]
            path = root / folder.format(name) / f"part-0.{ending}"
            path.parent.mkdir(parents=True)
            if ending == "parquet":
                more = {column: [values[n] for n in chosen] for column, values in columns.items()}
                pq.write_table(pa.table({"image": [image(n) for n in chosen], **more}), path)
            else:
                with h5py.File(path, "w") as file:
                    file["x"] = PIXELS[chosen]

    return write


def npz(**arrays: Any) -> Write:
    return lambda folder: np.savez(folder / "all.npz", images=PIXELS, **arrays)


def of_sets(template: str, **arrays: Any) -> Write:
    """Three sets in one file, as those of MedMNIST; template: how an array of a set is called."""
    parts = {"train": slice(0, 8), "val": slice(8, 10), "test": slice(10, COUNT)}

    def write(folder: Path) -> None:
        every = {"images": PIXELS, **{name: np.array(values) for name, values in arrays.items()}}
        named = {template.format(s, name): of[part] for s, part in parts.items() for name, of in every.items()}
        np.savez(folder / "a.npz", **named)

    return write


def tar(fields: Callable[[int], dict[str, Any]], *called: str) -> Write:
    def write(folder: Path) -> None:
        with wds.TarWriter(str(folder / "shard-000000.tar")) as writer:
            for number in range(COUNT):
                images = dict.fromkeys(called or ("png",), image(number))
                writer.write({"__key__": f"s{number:02}", **images, **fields(number)})

    return write


CASES: dict[str, tuple[Write, str, list[Any]]] = {
    "Hugging Face's classes": (hugging, "classification", NAMES),
    "texts in Parquet": (parquet(label=NAMES, patient=PATIENTS), "classification", NAMES),
    "lists in Parquet": (parquet(findings=LISTS, patient=PATIENTS), "multilabel", LISTS),
    "a number in Parquet": (parquet(score=NUMBERS, patient=PATIENTS), "regression", NUMBERS),
    "grades in Parquet": (parquet(grade=GRADES, patient=PATIENTS), "ordinal", [str(g) for g in GRADES]),
    "folders of Hive": (in_folders("parquet", "label={}"), "classification", NAMES),
    "folders of Hive and a patient": (
        in_folders("parquet", "data/diagnosis={}", patient=PATIENTS),
        "classification",
        NAMES,
    ),
    "a column beside folders of Hive": (
        in_folders("parquet", "label={}", label=[f"{n % 3}" for n in range(COUNT)]),
        "classification",
        [f"{n % 3}" for n in range(COUNT)],
    ),
    "folders of classes in Parquet": (in_folders("parquet", "all/{}"), "classification", NAMES),
    "folders of classes in HDF5": (in_folders("h5", "{}"), "classification", NAMES),
    "texts in HDF5": (hdf5(label=np.array(NAMES, "S"), patient=np.array(PATIENTS, "S")), "classification", NAMES),
    "bytes in Parquet": (parquet(label=[name.encode() for name in NAMES], patient=PATIENTS), "classification", NAMES),
    "no class in Parquet": (
        parquet(label=[n % 3 - 1 for n in range(COUNT)]),
        "classification",
        [(None, "0", "1")[n % 3] for n in range(COUNT)],
    ),
    "texts of another encoding": (
        npz(label=np.array([b"caf\xe9", b"caf\xe8"] * (COUNT // 2))),
        "classification",
        ["café", "cafè"] * (COUNT // 2),
    ),
    "two columns of Hugging Face's classes": (hugging_twice, "classification", NAMES),
    "numbers in HDF5": (hdf5(label=np.arange(COUNT) % 3), "classification", [str(n % 3) for n in range(COUNT)]),
    "names of numbers in HDF5": (
        hdf5(
            label=np.arange(COUNT).astype(h5py.enum_dtype({"tumour": 0, "normal": 1, "2": 2}, "i1")) % 2,
            patient=np.array(PATIENTS, "S"),
        ),
        "classification",
        NAMES[1:] + NAMES[:1],
    ),
    "a number in HDF5": (hdf5(score=np.array(NUMBERS)), "regression", NUMBERS),
    "grades in npz": (npz(grade=np.array(GRADES)), "ordinal", [str(g) for g in GRADES]),
    "sets in npz": (of_sets("{}_{}", labels=NAMES, patient=PATIENTS), "classification", NAMES),
    "sets at the end of names in npz": (of_sets("{1}-{0}", y=NAMES), "classification", NAMES),
    "columns of labels of sets": (
        of_sets("{}/{}", labels=[[n % 2] for n in range(COUNT)]),
        "classification",
        [str(n % 2) for n in range(COUNT)],
    ),
    "a number in npz": (npz(score=np.array(NUMBERS)), "regression", NUMBERS),
    "0 and 1 in Parquet": (
        parquet(a=[n % 2 for n in range(COUNT)], b=[n % 3 % 2 for n in range(COUNT)]),
        "multilabel",
        [[name for name, has in (("a", n % 2), ("b", n % 3 % 2)) if has] for n in range(COUNT)],
    ),
    "texts in tars": (tar(lambda n: {"cls": NAMES[n].encode()}), "classification", NAMES),
    "images of another name in tars": (
        tar(lambda n: {"cls": NAMES[n].encode()}, "left.png"),
        "classification",
        NAMES,
    ),
    "two images in tars": (tar(lambda n: {"cls": NAMES[n].encode()}, "png", "mask.png"), "classification", NAMES),
    "numbers in tars": (tar(lambda n: {"cls": n % 2}), "classification", [str(n % 2) for n in range(COUNT)]),
    "members of JSON": (
        tar(lambda n: {"json": {"diagnosis": NAMES[n], "patient": PATIENTS[n]}}),
        "classification",
        NAMES,
    ),
    "lists in JSON": (tar(lambda n: {"json": {"findings": LISTS[n]}}), "multilabel", LISTS),
    "a number in JSON": (tar(lambda n: {"json": {"case": {"score": NUMBERS[n]}}}), "regression", NUMBERS),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_converted_by_the_draft_is_what_was_written(case: str, dpconvert: Call, tmp_path: Path) -> None:
    write, kind, expected = CASES[case]
    folder, path = tmp_path / "held", tmp_path / "my.toml"
    folder.mkdir()
    write(folder)
    answer = dpconvert("init", folder, "--out", path, "-q")
    assert answer.code == 0, answer.out + answer.err
    manifest = tomllib.loads(path.read_text())
    assert manifest["kind"] == kind
    made = dpconvert(path, "--source", folder, "--out", tmp_path / "out", "--workers", 1, "-q")
    assert made.code == 0, made.err
    found: dict[int, Any] = {}
    groups, homes = set(), {}
    for shard in sorted((tmp_path / "out" / manifest["task"]).glob("*.tar")):
        with tarfile.open(shard) as opened:
            content = {one.name: opened.extractfile(one).read() for one in opened}  # type: ignore[union-attr]
        for name in (name for name in content if name.endswith(".json")):
            fields = json.loads(content[name])
            pixels = np.asarray(Image.open(io.BytesIO(content[name.removesuffix("json") + "png"])))
            (number,) = np.flatnonzero((pixels == PIXELS).all(axis=(1, 2, 3)))
            homes[int(number)] = shard.name.partition("-")[0]
            found[int(number)] = next(fields[key] for key in ("label_name", "label_names", "value") if key in fields)
            groups.add(fields["group"])
    assert [found.get(number) for number in range(COUNT)] == expected
    if case.startswith("sets"):
        assert [homes[number] for number in range(COUNT)] == ["train"] * 8 + ["val"] * 2 + ["test"] * (COUNT - 10)
    has_patient = "patient" in path.read_text().split("[layout]")[1]
    assert len(groups) == (COUNT // 2 if has_patient else len(found))


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (hdf5(y=np.eye(3, dtype=int)[np.arange(COUNT) % 3]), "Name the classes 0 to 2 of 'y' in their order"),
        (hdf5(y=np.array([[n % 2, 1] for n in range(COUNT)])), "Name the 2 classes of the 0 and 1 of 'y'"),
        (
            lambda folder: np.savez(folder / "a.npz", x=PIXELS / 255, y=np.array(NAMES)),
            "`range = [0, 1]` under [pixels]",
        ),
        (
            lambda folder: np.savez(folder / "a.npz", x=PIXELS[:, :3], y=np.array(NAMES)),
            "axes are channels is not clear",
        ),
        (
            parquet(first=NAMES, second=[("x", "y", "z")[n % 3] for n in range(COUNT)]),
            "Several columns may be the label",
        ),
        (parquet(counts=list(range(5, 5 + 7 * COUNT, 7)), lengths=NUMBERS), "Several columns hold numbers"),
        (
            tar(lambda n: {"cls": NAMES[n].encode()}, "left.png", "right.png"),
            "Fields that may be the image: left.png, right.png",
        ),
        (parquet(label=[[0, 2], [1]] * (COUNT // 2)), "Name the classes that the numbers of 'label' count"),
    ],
    ids=["one-hot", "indicators", "floats", "axes", "two", "measured", "fields", "indices"],
)
def test_what_may_mean_several_things_is_asked(write: Write, told: str, dpconvert: Call, tmp_path: Path) -> None:
    folder = tmp_path / "held"
    folder.mkdir()
    write(folder)
    answer = dpconvert("init", folder, "--out", tmp_path / "my.toml", "-q")
    assert answer.code == 1
    assert told in answer.err
    assert "NOT READY" in (tmp_path / "my.toml").read_text()


def test_sets_and_patients_in_the_names_of_folders_are_kept(dpconvert: Call, tmp_path: Path) -> None:
    folder, at = tmp_path / "held", 0
    for split, patients in {"train": (1, 2), "test": (3,)}.items():
        for patient in patients:
            for label in (0, 1):
                path = folder / f"split={split}" / f"patient={patient}" / f"label={label}" / "a.parquet"
                path.parent.mkdir(parents=True)
                pq.write_table(pa.table({"image": [image(at), image(at + 1)]}), path)
                at += 2
    answer = dpconvert("init", folder, "--out", tmp_path / "my.toml", "-q")
    assert answer.code == 0, answer.out + answer.err
    text = (tmp_path / "my.toml").read_text().replace('classes = ["0", "1"]', 'classes = ["no", "yes"]')
    (tmp_path / "my.toml").write_text(text.replace("val = 0.15", "# val = 0.15"))
    made = dpconvert(tmp_path / "my.toml", "--source", folder, "--out", tmp_path / "out", "--workers", 1, "-q")
    assert made.code == 0, made.err
    rows = pq.read_table(tmp_path / "out" / "Held" / "index.parquet").to_pylist()
    assert len(rows) == at
    for row in rows:
        told = dict(part.split("=") for part in row["source"].split("/")[:3])
        assert (row["split"], row["group"], str(row["label"])) == (
            told["split"],
            f"my:{told['patient']}",
            told["label"],
        )


def class_folders(folder: Path) -> None:
    for number in range(COUNT):
        (folder / NAMES[number]).mkdir(exist_ok=True)
        np.save(folder / NAMES[number] / f"{number}.npy", PIXELS[number])


def test_arrays_are_never_taken_for_single_images_of_a_class(dpconvert: Call, tmp_path: Path) -> None:
    folder = tmp_path / "held"
    folder.mkdir()
    class_folders(folder)
    answer = dpconvert("init", folder, "--out", tmp_path / "my.toml", "-q")
    assert answer.code == 1
    assert 'see shape = "arrays"' in answer.err


def apart(folder: Path, images: str, labels: str, table: str = "") -> None:
    """Images, labels and a table of each set in files of their own; {} stands for the set."""
    for at, part in ((0, "train"), (6, "test")) if "{}" in images else ((0, ""),):
        rows = slice(at, at + 6 if part else COUNT)
        for name, values in ((images, PIXELS[rows]), (labels, np.array([n % 2 for n in range(COUNT)])[rows])):
            (path := folder / name.format(part)).parent.mkdir(exist_ok=True, parents=True)
            if path.suffix == ".npy":
                np.save(path, values)
            elif name:
                with h5py.File(path, "w") as file:
                    file[path.stem[-1]] = values if values.ndim > 1 else values.reshape(-1, 1, 1, 1)
        if table:
            lines = [f"{NAMES[n]},{PATIENTS[n]}" for n in range(COUNT)[rows]]
            (folder / table.format(part)).write_text("\n".join(["label,wsi", *lines, ""]))


@pytest.mark.parametrize(
    "names",
    [
        ("p_{}_x.h5", "p_{}_y.h5"),
        ("X_{}.npy", "y_{}.npy"),
        ("{}/images.npy", "{}/labels.npy"),
        ("images/{}.npy", "labels/{}.npy"),
        ("images.npy", "labels.npy"),
        ("p_{}_x.h5", "p_{}_y.h5", "p_{}_meta.csv"),
    ],
)
def test_images_and_labels_in_files_of_their_own(names: tuple[str, ...], dpconvert: Call, tmp_path: Path) -> None:
    apart(tmp_path / "s", *names)
    assert dpconvert("init", tmp_path / "s", "--out", tmp_path / "my.toml", "-q").code == 0
    assert dpconvert(tmp_path / "my.toml", "--source", tmp_path / "s", "--out", tmp_path / "o", "-q").code == 0
    rows = read_index(next((tmp_path / "o").glob("*/index.parquet"))).to_pylist()
    assert len(rows) == COUNT
    numbers = [int(row["source"].rpartition("/")[2]) + (6 if "test" in row["source"] else 0) for row in rows]
    assert [row["label"] for row in rows] == [number % 2 for number in numbers]
    if "{}" in names[0]:
        assert {row["split"] == "test" for row in rows if "test" in row["source"]} == {True}
        assert {row["split"] == "test" for row in rows if "test" not in row["source"]} == {False}
    if len(names) == 3:
        assert [row["group"].rpartition(":")[2] for row in rows] == [PATIENTS[number] for number in numbers]


def test_a_table_beside_an_array_of_images_tells_their_labels(dpconvert: Call, tmp_path: Path) -> None:
    apart(tmp_path / "s", "images.npy", "labels.npy", "labels.csv")
    (tmp_path / "s" / "labels.npy").unlink()
    assert dpconvert("init", tmp_path / "s", "--out", tmp_path / "my.toml", "-q").code == 0
    assert dpconvert(tmp_path / "my.toml", "--source", tmp_path / "s", "--out", tmp_path / "o", "-q").code == 0
    rows = read_index(next((tmp_path / "o").glob("*/index.parquet"))).to_pylist()
    classes = tomllib.loads((tmp_path / "my.toml").read_text())["classes"]
    numbers = [int(row["source"].rpartition("/")[2]) for row in rows]
    assert [classes[row["label"]] for row in rows] == [NAMES[number] for number in numbers]
    assert [row["group"].rpartition(":")[2] for row in rows] == [PATIENTS[number] for number in numbers]


def test_a_second_column_of_images_is_reported(dpconvert: Call, tmp_path: Path) -> None:
    masks = (PIXELS[..., 0] > 99).astype(np.uint8).tolist()
    (tmp_path / "s").mkdir()
    table = {"image": PIXELS.tolist(), "mask": masks, "label": NAMES}
    pq.write_table(pa.table(table), tmp_path / "s" / "a.parquet")
    answer = dpconvert("init", tmp_path / "s", "--out", tmp_path / "my.toml", "-q")
    assert (answer.code, tomllib.loads((tmp_path / "my.toml").read_text())["classes"]) == (0, ["normal", "tumour"])
    assert "Not read: the images in the column 'mask'" in (tmp_path / "my.toml").read_text()


def test_packed_arrays_are_looked_into(dpconvert: Call, tmp_path: Path) -> None:
    apart(tmp_path / "s", "p_{}_x.h5", "p_{}_y.h5")
    for path in list((tmp_path / "s").iterdir()):
        (path.parent / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    answer = dpconvert("init", tmp_path / "s", "--out", tmp_path / "my.toml", "-q")
    assert answer.code == 0
    manifest = tomllib.loads((tmp_path / "my.toml").read_text())
    assert manifest["files"]["labels"]["pattern"] == r"^(?P<name>p_(?P<split>test|train))_y\.h5\.gz$"


def test_sets_in_the_names_of_files_and_in_a_column_are_kept(dpconvert: Call, tmp_path: Path) -> None:
    folder = tmp_path / "held"
    folder.mkdir()
    for name in ("train-00000-of-00001", "test-00000-of-00001"):
        parquet(label=NAMES)(folder)
        (folder / "train.parquet").rename(folder / f"{name}.parquet")
    answer = dpconvert("init", folder, "--out", tmp_path / "my.toml", "-q")
    assert answer.code == 0, answer.err
    assert tomllib.loads((tmp_path / "my.toml").read_text())["split"]["strict"] == {"official": True, "val": 0.15}
