"""Shards with masks and points in the tools that people have: each test runs the real package."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dpconvert.shards.index import read_index
from tests.dpconvert.conftest import Converted
from tests.dpconvert.test_dense import masks_of, stored
from tests.dpconvert.test_dense_sources import kept

Get = Callable[[str], Converted]
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def folder(converted: Get) -> Path:
    """PanNuke's fake with masks and points: two samples in each set."""
    return kept(converted("pannuke"))


def shards(folder: Path, split: str) -> list[str]:
    return [str(path) for path in sorted(folder.glob(f"{split}-*.tar"))]


def test_webdataset_gives_image_label_mask_and_points(folder: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    masks = masks_of(folder)
    found = list(webdataset.WebDataset(shards(folder, "train"), shardshuffle=False).decode("pil"))
    assert len(found) == 2
    for sample in found:
        assert np.array_equal(np.asarray(sample["seg.png"])[:, :, 0], masks[sample["__key__"]])
        assert sample["png"].size == sample["seg.png"].size
        assert sample["json"]["points"] == json.loads(stored(folder)[sample["__key__"]]["json"])["points"]


def test_datasets_gives_masks_and_points(folder: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    masks = masks_of(folder)
    found = datasets.load_dataset(str(folder), cache_dir=str(tmp_path))
    for sample in found["train"]:
        assert np.array_equal(np.asarray(sample["seg.png"]), masks[sample["__key__"]])
        points = json.loads(stored(folder)[sample["__key__"]]["json"])["points"]
        assert sample["json"]["points"] == points
        assert len(points) > 0


def test_timm_reads_images_and_labels(folder: Path) -> None:
    timm_data = pytest.importorskip("timm.data")
    found = timm_data.create_dataset("wds/p", root=str(folder), split="val", is_training=False, batch_size=1)
    rows = read_index(folder / "index.parquet").to_pylist()
    assert sorted(label for _, label in found) == sorted(row["label"] for row in rows if row["split"] == "val")


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
def test_energon_reads_images_and_labels(folder: Path) -> None:
    energon = pytest.importorskip("megatron.energon")
    alone = energon.WorkerConfig(rank=0, world_size=1, num_workers=0)
    found = energon.get_val_dataset(str(folder), split_part="val", worker_config=alone, batch_size=1)
    assert len(list(energon.get_loader(found))) == 2


def test_the_index_of_a_tar_is_the_one_that_energon_would_make(folder: Path, tmp_path: Path) -> None:
    prepare = pytest.importorskip("megatron.energon.flavors.webdataset.prepare")
    path = pytest.importorskip("megatron.energon.epathlib").EPath(str(tmp_path))
    for index in sorted(folder.glob("*.tar.idx")):
        (tmp_path / index.stem).symlink_to(folder / index.stem)
        list(prepare.WebdatasetPreparator._preprocess_tar(index.stem, {index.stem: 0}, path, 50))
        assert (tmp_path / index.name).read_bytes() == index.read_bytes()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_croissant_gives_the_columns_of_masks_and_objects(folder: Path) -> None:
    croissant = pytest.importorskip("mlcroissant")
    found = croissant.Dataset(str(folder / "croissant.json"))
    assert not found.metadata.ctx.issues.errors
    rows = read_index(folder / "index.parquet").to_pylist()
    names = ("seg_offset", "seg_length", "objects")
    assert [[s[f"samples/{name}"] for name in names] for s in found.records("samples")] == [
        [row[name] for name in names] for row in rows
    ]


def test_mtrain_serves_images_and_labels_of_such_a_task(folder: Path) -> None:
    mtrain = pytest.importorskip("mtrain")
    found = mtrain.ShardDataset(folder, "train")
    assert len(found) == 2
    assert found[0][0].size == (256, 256)
