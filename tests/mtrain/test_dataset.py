"""Shards as a PyTorch dataset: a split in any loader; the test set only when asked for."""

from __future__ import annotations

import gc
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import mtrain
from mtrain import ShardDataset
from mtrain.data.batches.images import Images
from mtrain.data.task import open_task
from mtrain.errors import UsageError
from tests.mtrain.pools import write_task


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_task(tmp_path_factory.mktemp("pool") / "Gamma", classes=3)


def test_it_has_the_images_labels_and_groups_of_the_split(folder: Path) -> None:
    task, found = open_task(folder), ShardDataset(folder, "train")
    assert (len(found), found.classes, found.class_to_idx["class-2"]) == (24, ["class-0", "class-1", "class-2"], 2)
    assert found.targets == [i % 3 for i in range(24)]
    assert found.groups[:5] == ["toy:train-0"] * 4 + ["toy:train-1"]
    image, label = found[5]
    assert (image.mode, image.size, label) == ("RGB", (32, 40), 2)
    expected = Images([(task, task.rows["train"])]).decode(5)
    np.testing.assert_array_equal(np.asarray(image), expected)
    assert found[-1][1] == found[23][1]
    with pytest.raises(IndexError, match="no image 24: this dataset has 24 images"):
        found[24]
    with pytest.raises(IndexError, match="no image -25"):
        found[-25]
    with pytest.raises(TypeError, match="'slice' object cannot be interpreted as an integer"):
        found[0:2]  # type: ignore[index]
    assert repr(found) == "ShardDataset(Gamma, train: 24 images of 3 classes)"


def test_the_test_set_opens_only_when_requested(folder: Path) -> None:
    with pytest.raises(UsageError, match="give open_test=True"):
        ShardDataset(folder, "test")
    assert len(ShardDataset(folder, "test", open_test=True)) == 8
    with pytest.raises(UsageError, match="no split 'all'"):
        ShardDataset(folder, "all")


def test_transforms_make_what_a_loop_wants(folder: Path) -> None:
    found = ShardDataset(folder, "val", transform=v2.ToImage(), target_transform=str)
    image, label = found[1]
    assert isinstance(image, torch.Tensor)
    assert (tuple(image.shape), label) == ((3, 40, 32), "1")


def test_its_files_are_closed_with_it_even_if_somebody_has_closed_them(folder: Path) -> None:
    found = ShardDataset(folder)
    found[0]
    (descriptor,) = found._images._files._open.values()
    os.close(descriptor)
    del found  # an exception in a __del__ is a warning, which is an error here
    gc.collect()


def test_a_folder_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="absent: no such task folder; give the folder of one task"):
        ShardDataset(tmp_path / "absent")


def test_it_pickles_after_use(folder: Path) -> None:
    found = ShardDataset(folder, "val")
    first = np.asarray(found[0][0])
    again: ShardDataset = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(np.asarray(again[0][0]), first)


@pytest.mark.stress  # a process that imports torch once more; that it pickles is what it hangs on
def test_spawned_loader_processes_read_it(folder: Path) -> None:
    found = ShardDataset(folder, "train", transform=v2.PILToTensor())
    found[0]
    loader = DataLoader(found, batch_size=8, num_workers=1, multiprocessing_context="spawn")
    batches = list(loader)
    assert [tuple(images.shape) for images, _ in batches] == [(8, 3, 40, 32)] * 3
    assert torch.cat([labels for _, labels in batches]).tolist() == found.targets


def test_the_package_offers_it_and_nothing_else_unknown() -> None:
    assert "ShardDataset" in mtrain.__all__
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        mtrain.Nothing  # noqa: B018
