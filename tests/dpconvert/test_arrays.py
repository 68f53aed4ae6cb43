"""Shape "arrays": HDF5 and NumPy files written by h5py and NumPy themselves, in every form that data sets come in."""

from __future__ import annotations

import gzip
import io
import os
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dpconvert.shards.index import read_index
from dpconvert.source import cache
from tests.dpconvert.conftest import Answer, Workplace

HEAD = 'task = "Mine"\nclasses = ["no", "yes"]\nshape = "arrays"\n'
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (8, 20, 24, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 0, 1, 1, 0, 0, 1])
Convert = Callable[..., dict[int, tuple[NDArray[np.uint8], int, dict[str, Any]]]]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def convert(tmp_path: Path, workplace: Workplace) -> Convert:
    """`convert(text)` gives number of the image -> pixels, label and row of the index; or the line of an error."""

    def made(text: str, *options: object, fails: bool = False) -> Any:
        if fails:
            return workplace.refusal(HEAD + text, *options)
        rows = workplace.convert(HEAD + text, *options)
        return {int(row["source"].rpartition("/")[2]): (stored(tmp_path, row), row["label"], row) for row in rows}

    return made


def stored(tmp_path: Path, row: dict[str, Any]) -> NDArray[np.uint8]:
    with (tmp_path / "out" / "Mine" / row["shard"]).open("rb") as file:
        file.seek(row["offset"])
        return np.asarray(Image.open(io.BytesIO(file.read(row["length"]))))


def same(found: dict[int, tuple[NDArray[np.uint8], int, dict[str, Any]]], images: NDArray[Any] = IMAGES) -> bool:
    return len(found) == len(images) and all(
        (pixels == images[number]).all() and label == LABELS[number] for number, (pixels, label, _) in found.items()
    )


def hdf5(path: Path, **arrays: NDArray[Any]) -> None:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name.replace("__", "/"), data=values, chunks=True, compression="gzip")


@pytest.mark.parametrize("axes", ["NHWC", "NCHW"])
def test_a_file_of_images_and_labels(axes: str, source: Path, convert: Convert) -> None:
    images = IMAGES if axes == "NHWC" else np.moveaxis(IMAGES, 3, 1)
    hdf5(source / "all.h5", data__images=images, data__labels=LABELS)
    told = '[layout]\nimages = "data/images"\nlabels = "data/labels"\n'
    assert same(convert(told))
    assert same(convert(told + f'axes = "{axes}"\n'))


@pytest.mark.parametrize("form", ["numbers", "columns", "one-hot", "texts", "floats"])
def test_labels_of_every_form(form: str, source: Path, convert: Convert) -> None:
    texts = np.array(["no", "yes"])[LABELS]
    labels = {
        "numbers": LABELS,
        "columns": LABELS.reshape(-1, 1, 1, 1),
        "one-hot": np.eye(2)[LABELS],
        "texts": texts.astype(h5py.string_dtype()),
        "floats": LABELS.astype(float),
    }[form]
    hdf5(source / "all.h5", x=IMAGES, y=labels)
    assert same(convert('[layout]\nlabels = "y"\n'))


def test_the_names_of_an_enumerated_type_are_the_classes_whatever_their_numbers(source: Path, convert: Convert) -> None:
    of_label = h5py.enum_dtype({"yes": 0, "no": 5}, basetype="i1")
    of_set = h5py.enum_dtype({"test": 0, "train": 1}, basetype="i1")
    with h5py.File(source / "all.h5", "w") as file:
        file["x"] = IMAGES
        file.create_dataset("y", data=np.array([5, 0])[LABELS], dtype=of_label)
        file.create_dataset("set", data=np.arange(8) % 2, dtype=of_set)
    found = convert('[layout]\nlabels = "y"\nsplit = "set"\n[split.strict]\nofficial = true\n')
    assert same(found)
    assert {row["split"] for number, (_, _, row) in found.items() if number % 2} == {"train"}
    (source / "all.h5").unlink()
    with h5py.File(source / "all.h5", "w") as file:
        file["x"] = IMAGES
        file.create_dataset("y", data=np.array([5, 4])[LABELS], dtype=of_label)
    assert "does not name; found 4; it names 0 yes, 5 no" in convert('[layout]\nlabels = "y"\n', fails=True)


@pytest.mark.parametrize("form", ["hdf5", "npz", "one-hot", "multilabel"])
def test_classes_that_the_file_names_in_another_order_are_refused(form: str, source: Path, convert: Convert) -> None:
    names = ["yes", "no"]  # 0 is yes, where the manifest lists no first
    labels = np.eye(2, dtype=int)[LABELS] if form in ("one-hot", "multilabel") else LABELS
    if form == "npz":
        np.savez_compressed(source / "all.npz", x=IMAGES, y=labels, list_classes=np.array(names))
    else:
        hdf5(source / "all.h5", x=IMAGES, y=labels, list_classes=np.array(names, "S"))
    head, keys = 'kind = "multilabel"\n' if form == "multilabel" else "", '[layout]\nimages = "x"\nlabels = "y"\n'
    told = convert(head + keys, fails=True)
    assert "/list_classes: the file names its classes in another order than the manifest" in told
    if form == "multilabel":
        assert 'put them in the file\'s order: classes = ["yes", "no"]' in told
    else:
        values = 'values = {0 = "yes", 1 = "no"}'
        assert told.rstrip().endswith(values)
        found = convert(keys + values + "\n")
        assert {number: label for number, (_, label, _) in found.items()} == dict(enumerate(1 - LABELS))


@pytest.mark.parametrize("ending", ["h5", "npz"])
def test_arrays_are_found_in_another_unicode_form(ending: str, source: Path, convert: Convert) -> None:
    apart = unicodedata.normalize("NFD", "étiquette")
    if ending == "h5":
        hdf5(source / "all.h5", **{"données__images": IMAGES, apart: LABELS})
    else:
        np.savez(source / "all.npz", **{"données/images": IMAGES, apart: LABELS})
    told = '[layout]\nimages = "Données/images"\nlabels = "étiquette"\n'
    assert same(convert(told))
    assert "no " in convert(told.replace("étiquette", "etiquette"), fails=True)


def test_npy_files_of_images_and_labels_are_mapped(source: Path, convert: Convert) -> None:
    np.save(source / "a_x.npy", np.asfortranarray(IMAGES))
    np.save(source / "a_y.npy", np.array(["B", "M"])[LABELS])
    found = convert(
        """[files.images]
pattern = '(?P<name>a)_x[.]npy$'
[files.labels]
pattern = '(?P<name>a)_y[.]npy$'
[layout]
values = {B = "no", M = "yes"}
"""
    )
    assert same(found)
    assert found[3][2]["source"] == "a_x.npy/3"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_files_packed_or_not(save: Any, source: Path, convert: Convert) -> None:
    save(source / "all.npz", train_images=IMAGES, train_labels=LABELS.reshape(-1, 1))
    assert same(convert('[layout]\nlabels = "train_labels"\n'))
    assert (source / cache.FOLDER).exists() == (save is np.savez_compressed)


def test_packed_files_are_unpacked_once_and_reported(
    source: Path, convert: Convert, tmp_path: Path, dpconvert: Callable[..., Answer]
) -> None:
    hdf5(tmp_path / "all.h5", x=IMAGES, y=LABELS)
    (source / "all.h5.gz").write_bytes(gzip.compress((tmp_path / "all.h5").read_bytes()))
    assert same(convert('[layout]\nlabels = "y"\n'))
    [made] = [path for path in (source / cache.FOLDER).iterdir() if not path.name.endswith(".lock")]
    assert made.read_bytes() == (tmp_path / "all.h5").read_bytes()
    before = made.stat().st_mtime_ns
    assert same(convert('[layout]\nlabels = "y"\n'))
    assert made.stat().st_mtime_ns == before
    card = (tmp_path / "out" / "Mine" / "task.json").read_text()
    assert "all.h5.gz is read from a copy that was unpacked into the cache (.dpconvert-cache" in card


def test_a_changed_file_is_unpacked_anew(source: Path, convert: Convert, tmp_path: Path) -> None:
    for images in (IMAGES, 255 - IMAGES):
        hdf5(tmp_path / "all.h5", x=images, y=LABELS)
        (source / "all.h5.gz").write_bytes(gzip.compress((tmp_path / "all.h5").read_bytes()))
        os.utime(source / "all.h5.gz", ns=(0, int(images[0, 0, 0, 0])))
        assert same(convert('[layout]\nlabels = "y"\n'), images)


def test_a_file_of_the_same_size_and_time_is_unpacked_anew(source: Path, convert: Convert, tmp_path: Path) -> None:
    sizes = set()
    for images in (IMAGES, 255 - IMAGES):
        with h5py.File(tmp_path / "all.h5", "w") as file:
            file["x"], file["y"] = images, LABELS
        packed = source / "all.h5.gz"
        packed.write_bytes(gzip.compress((tmp_path / "all.h5").read_bytes(), compresslevel=0, mtime=0))
        os.utime(packed, ns=(0, 0))
        sizes.add(packed.stat().st_size)
        assert same(convert('[layout]\nlabels = "y"\n'), images)
    assert len(sizes) == 1


def test_arrays_in_a_zip_archive_and_a_cache_elsewhere(
    source: Path, convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "elsewhere"))
    np.save(tmp_path / "x.npy", IMAGES.astype(float))
    masks = np.zeros((8, 20, 24, 3))
    masks[LABELS == 1, 5, 7, 1] = 3
    np.save(tmp_path / "m.npy", masks)
    with zipfile.ZipFile(source / "fold.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "x.npy", "a/images.npy")
        archive.write(tmp_path / "m.npy", "a/masks.npy")
    found = convert(
        """[files.images]
pattern = '(?P<name>a)/images[.]npy$'
[files.labels]
pattern = '(?P<name>a)/masks[.]npy$'
[layout]
column = 1
[pixels]
range = [0, 255]
"""
    )
    assert same(found)
    assert not (source / cache.FOLDER).exists()
    assert (tmp_path / "elsewhere").is_dir()


def test_a_table_and_arrays_tell_groups_and_sets(source: Path, convert: Convert) -> None:
    hdf5(source / "all.h5", x=IMAGES, y=LABELS, patient=np.arange(8) // 2)
    found = convert('[layout]\nimages = "x"\nlabels = "y"\ngroup = "patient"\n')
    assert {number: row["group"] for number, (_, _, row) in found.items()} == {n: f"my:{n // 2}" for n in range(8)}
    (source / "all.csv").write_text(
        "wsi,set\n" + "".join(f"s{n // 4},{'learn' if n < 4 else 'test'}\n" for n in range(8))
    )
    found = convert(
        """[files.table]
pattern = '(?P<name>all)[.]csv$'
[layout]
images = "x"
labels = "y"
group = "wsi"
split = "set"
splits = {learn = "train"}
[split.strict]
official = true
"""
    )
    assert {number: (row["group"], row["split"]) for number, (_, _, row) in found.items()} == {
        n: (f"my:s{n // 4}", "train" if n < 4 else "test") for n in range(8)
    }


@pytest.mark.parametrize(("axes", "packed"), [("HWC", False), ("HWC", True), ("CHW", False)])
def test_a_file_may_hold_a_single_image_among_more_channels(
    axes: str, packed: bool, source: Path, convert: Convert, tmp_path: Path
) -> None:
    """As patches of nuclei are often stored: the colours, then numbers of nuclei and their kinds."""
    for number in range(8):
        array = np.dstack([IMAGES[number], np.full((20, 24, 2), number, np.uint8)]).astype(np.float64)
        folder = source / ("no" if LABELS[number] == 0 else "yes")
        folder.mkdir(exist_ok=True)
        np.save(folder / f"{number}.npy", array if axes == "HWC" else np.moveaxis(array, 2, 0))
    if packed:
        with zipfile.ZipFile(source / "all.zip", "w") as archive:
            for path in sorted(source.rglob("*.npy")):
                archive.write(path, path.relative_to(source))
        for path in source.rglob("*.npy"):
            path.unlink()
    found = convert(
        f'[layout]\naxes = "{axes}"\nchannels = [0, 1, 2]\n[pixels]\nrange = [0, 255]\n'
        "[files.images]\npattern = '(?P<class>no|yes)/(?P<name>\\d)\\.npy$'\n"
    )
    assert len(found) == 1  # all have number 0 in their files
    rows = read_index(tmp_path / "out" / "Mine" / "index.parquet").to_pylist()
    assert len(rows) == 8
    for row in rows:
        number = int(Path(row["source"]).parent.stem)
        assert (stored(tmp_path, row) == IMAGES[number]).all()
        assert row["label"] == LABELS[number]
    assert not (source / cache.FOLDER).exists()


def test_a_file_of_images_may_be_a_class(source: Path, convert: Convert, tmp_path: Path) -> None:
    np.save(source / "no.npy", IMAGES[LABELS == 0])
    np.save(source / "yes.npy", IMAGES[LABELS == 1])
    convert("[files.images]\npattern = '(?P<name>(?P<class>no|yes))\\.npy$'\n")
    rows = read_index(tmp_path / "out" / "Mine" / "index.parquet").to_pylist()
    of_class = {0: IMAGES[LABELS == 0], 1: IMAGES[LABELS == 1]}
    assert len(rows) == 8
    for row in rows:
        assert (stored(tmp_path, row) == of_class[row["label"]][int(row["source"].rpartition("/")[2])]).all()


@pytest.mark.parametrize(
    ("layout", "told"),
    [
        ("channels = [0, 1, 2]", "`channels` needs `axes`"),
        ('axes = "HWC"\nlabels = "y"', "`labels` is for several images in a file"),
        ('axes = "HWC"\nchannels = [0, 1, 7]', "more than 7 channels"),
    ],
)
def test_layouts_of_single_images_that_cannot_be_are_refused(
    layout: str, told: str, source: Path, convert: Convert
) -> None:
    (source / "no").mkdir()
    np.save(source / "no/1.npy", IMAGES[0])
    text = f"[layout]\n{layout}\n[files.images]\npattern = '(?P<class>no)/(?P<name>\\d)\\.npy$'\n"
    assert told in convert(text, fails=True)


def test_images_of_sixteen_bits_and_grey_follow_the_rule_of_pixels(source: Path, convert: Convert) -> None:
    wide = IMAGES[..., 0].astype(np.uint16) * 257
    hdf5(source / "all.h5", x=wide, y=LABELS)
    assert same(convert('[layout]\nlabels = "y"\n'), np.repeat(IMAGES[..., :1], 3, axis=3))


@pytest.mark.parametrize(("divisor", "noted"), [(255, True), (1, False)])
def test_bytes_of_fractions_that_were_cut_off_are_noted(
    divisor: int, noted: bool, source: Path, convert: Convert, tmp_path: Path
) -> None:
    np.savez(source / "d.npz", x=(IMAGES / divisor).round().astype(np.uint8), y=LABELS)
    convert('[layout]\nimages = "x"\nlabels = "y"\n')
    told = "d.npz/x: the images are nearly black, with samples of 0 and 1 out of 255 in the 3 looked at"
    assert (told in (tmp_path / "out" / "Mine" / "task.json").read_text()) == noted


def test_patches_are_cut_out_of_images_of_an_array(source: Path, convert: Convert, tmp_path: Path) -> None:
    hdf5(source / "all.h5", x=IMAGES, y=LABELS)
    convert('[layout]\nlabels = "y"\n[rule]\ntype = "tiles"\nsize = 8\n')
    rows = read_index(tmp_path / "out" / "Mine" / "index.parquet").to_pylist()
    assert len(rows) == 8 * 6
    for row in rows:
        number, x, y = int(row["source"].rpartition("/")[2]), row["x"], row["y"]
        assert (stored(tmp_path, row) == IMAGES[number, y : y + 8, x : x + 8]).all()


FAULTS = {
    "no labels": ({"x": IMAGES}, "", "nothing says which array holds the labels; found x"),
    "no images": ({"x": LABELS, "y": LABELS}, 'labels = "y"', r"all.h5: 0 arrays that may be of images; found x \(8\)"),
    "two images": ({"a": IMAGES, "b": IMAGES, "y": LABELS}, 'labels = "y"', "2 arrays that may be of images"),
    "no array": ({"x": IMAGES}, 'labels = "why"', r"no data set 'why'; found x \(8 x 20 x 24 x 3\)"),
    "too few": ({"x": IMAGES, "y": LABELS[:5]}, 'labels = "y"', r"all.h5/y: not one value per image; expected 8"),
    "class": ({"x": IMAGES, "y": LABELS + 1}, 'labels = "y"', "a label beyond the manifest's classes"),
    "part": ({"x": IMAGES, "y": LABELS / 2}, 'labels = "y"', "a label that is not a whole number; found 0.5"),
    "float": ({"x": IMAGES / 255, "y": LABELS}, 'labels = "y"', "range = "),
    "axes": ({"x": IMAGES[:, :, :2], "y": LABELS}, 'labels = "y"\naxes = "NCHW"', "no image with axes CHW"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_reported_in_one_line(fault: str, source: Path, convert: Convert) -> None:
    arrays, layout, told = FAULTS[fault]
    hdf5(source / "all.h5", **arrays)
    import re

    assert re.search(told, convert(f"[layout]\n{layout}\n", fails=True))  # type: ignore[arg-type]


def test_a_damaged_file_and_one_of_objects_are_refused(source: Path, convert: Convert, tmp_path: Path) -> None:
    hdf5(source / "all.h5", x=IMAGES, y=LABELS)
    whole = (source / "all.h5").read_bytes()
    (source / "all.h5").write_bytes(whole[: len(whole) // 2])
    assert "all.h5: cannot be read as arrays" in convert('[layout]\nlabels = "y"\n', fails=True)
    (source / "all.h5").unlink()
    np.save(source / "x.npy", np.array([{"a": 1}], object), allow_pickle=True)
    assert "Python objects, which could run code" in convert("", fails=True)
    (source / "x.npy").unlink()
    (source / "all.h5.gz").write_bytes(gzip.compress(whole)[:-100])
    assert "all.h5.gz: cannot be unpacked" in convert('[layout]\nlabels = "y"\n', fails=True)
    assert not [path for path in (source / cache.FOLDER).iterdir() if not path.name.endswith(".lock")]


def test_a_filter_that_is_not_installed_is_not_called_damage(source: Path, convert: Convert) -> None:
    blosc = 32001
    with h5py.File(source / "all.h5", "w") as file:
        file["y"] = LABELS
        kind = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        kind.set_chunk(IMAGES.shape)
        kind.set_filter(blosc, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple(IMAGES.shape)
        h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_UINT8, space, kind).write_direct_chunk((0, 0, 0, 0), b"packed")
    told = convert('[layout]\nlabels = "y"\n', fails=True)
    assert "all.h5/x: compressed by a filter of HDF5 that is not installed; found" in told
    assert "(32001); `pip install hdf5plugin`" in told


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("axes", ["NHWC", "NCHW"])
@pytest.mark.parametrize("step", [1, 2])
def test_the_kinds_of_masks_are_found_on_either_axis(
    first: bool, axes: str, step: int, source: Path, convert: Convert
) -> None:
    """step: masks may be smaller than their images."""
    masks = np.zeros((*IMAGES.shape[:3], 6), np.uint8)
    masks[:, 4, 8, 2], masks[:, 0, 0, 5] = LABELS, 1
    masks = masks[:, ::step, ::step]
    images = np.moveaxis(IMAGES, 3, 1) if axes == "NCHW" else IMAGES
    hdf5(source / "all.h5", x=images, m=np.moveaxis(masks, 3, 1) if first else masks)
    assert same(convert('[layout]\nimages = "x"\nlabels = "m"\ncolumn = 2\n'))


def test_links_into_other_files_are_not_followed(source: Path, convert: Convert, tmp_path: Path) -> None:
    hdf5(tmp_path / "secret.h5", x=IMAGES, y=LABELS)
    with h5py.File(source / "all.h5", "w") as file:
        file["x"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "x")
        file["y"] = LABELS
    assert "all.h5/x: a data set that is kept in other files" in convert(
        '[layout]\nimages = "x"\nlabels = "y"\n', fails=True
    )


def test_several_sets_in_one_file(source: Path, workplace: Workplace, tmp_path: Path) -> None:
    parts = {"train": slice(0, 4), "test": slice(4, 8)}
    arrays = {"x": IMAGES, "y": LABELS, "p": np.array([f"P{n // 2}" for n in range(8)])}
    np.savez(source / "a.npz", **{f"{s}_{key}": of[part] for s, part in parts.items() for key, of in arrays.items()})
    layout = '[layout]\nimages = "{split}_x"\nlabels = "{split}_y"\ngroup = "{split}_p"\n'
    rows = workplace.convert(f"{HEAD}{layout}[split.strict]\nofficial = true\n")
    expected = {f"a.npz/{s}_x/{n - of.start}": (s, n) for s, of in parts.items() for n in range(of.start, of.stop)}
    assert {row["source"] for row in rows} == expected.keys()
    for row in rows:
        split, number = expected[row["source"]]
        found = (row["split"], row["label"], row["group"].rpartition(":")[2])
        assert found == (split, LABELS[number], f"P{number // 2}")
        assert (stored(tmp_path, row) == IMAGES[number]).all()


@pytest.mark.parametrize(
    ("layout", "told"),
    [
        ('images = "x"\nlabels = "{split}_y"', "`labels` holds {split}, which `images` must hold, too"),
        ('images = "{split}_x"\nsplit = "s"', "`images` holds {split}, which excludes `split`"),
        ('images = "{split}_images"\nlabels = "{split}_y"', "no array of images by this name; expected {split}_images"),
        ('images = "{split}_x"\nlabels = "{split}_z"', "train_z"),
    ],
)
def test_sets_that_cannot_be_read(layout: str, told: str, source: Path, convert: Convert) -> None:
    np.savez(source / "a.npz", train_x=IMAGES[:4], train_y=LABELS[:4], test_x=IMAGES[4:], test_y=LABELS[4:])
    assert told in str(convert(f"[layout]\n{layout}\n", fails=True))
