"""The same shards, as they are, in the tools that people have: each test runs the real package."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from dpconvert.card import load
from dpconvert.shards.index import read_index
from tests.dpconvert.conftest import Answer, Converted

Get = Callable[[str], Converted]
Labels = dict[str, Counter[int]]
QUIETLY = ("--workers", 1, "-q")
webdataset = pytest.importorskip("webdataset")
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # webdataset leaves files to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def lung(converted: Get) -> Converted:
    """164 samples of ten classes in six shards."""
    return converted("lung")


@pytest.fixture(scope="module")
def labels(lung: Converted) -> Labels:
    """Split -> label -> samples, as the index has them."""
    rows = read_index(lung.folder / "index.parquet").to_pylist()
    return {s: Counter(row["label"] for row in rows if row["split"] == s) for s in ("train", "val", "test")}


def shards(lung: Converted, split: str) -> list[str]:
    return [str(path) for path in sorted(lung.folder.glob(f"{split}-*.tar"))]


def test_webdataset_reads_them(lung: Converted, labels: Labels) -> None:
    stream = webdataset.WebDataset(shards(lung, "train"), shardshuffle=False).decode("pil")
    found = list(stream.to_tuple("png;jpg", "cls", "json"))
    assert Counter(label for _, label, _ in found) == labels["train"]
    assert all(fields["label"] == label and isinstance(image, Image.Image) for image, label, fields in found)


def test_datasets_reads_them(lung: Converted, labels: Labels, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    files = {split: shards(lung, split) for split in labels}
    found = datasets.load_dataset("webdataset", data_files=files, cache_dir=str(tmp_path))
    assert {split: Counter(found[split]["cls"]) for split in found} == labels
    assert found["val"][0]["png"].mode == "RGB"


def test_datasets_takes_splits_and_class_names_from_the_card(lung: Converted, labels: Labels, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset(str(lung.folder), cache_dir=str(tmp_path))
    assert {split: Counter(found[split]["cls"]) for split in found} == labels
    assert found["train"].features["cls"].names == lung.card.classes


def test_timm_reads_them_by_their_info_file(lung: Converted, labels: Labels) -> None:
    timm_data = pytest.importorskip("timm.data")
    found = timm_data.create_dataset("wds/lung", root=str(lung.folder), split="val", is_training=False, batch_size=1)
    assert len(found) == labels["val"].total()
    assert Counter(label for _, label in found) == labels["val"]


@pytest.mark.stress
@pytest.mark.filterwarnings("ignore:The handler kwarg is deprecated")
@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
def test_energon_finds_nothing_to_mend(lung: Converted) -> None:
    lint = pytest.importorskip("megatron.energon.tools.lint")
    answer = CliRunner().invoke(lint.command, [str(lung.folder), "--parallel", "0"])
    assert answer.exit_code == 0, answer.output
    assert "Error" not in answer.output


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
def test_energon_reads_them(lung: Converted, labels: Labels) -> None:
    energon = pytest.importorskip("megatron.energon")
    alone = energon.WorkerConfig(rank=0, world_size=1, num_workers=0)
    found = energon.get_val_dataset(str(lung.folder), split_part="val", worker_config=alone, batch_size=1)
    samples = list(energon.get_loader(found))
    assert Counter(int(sample.label[0]) for sample in samples) == labels["val"]
    assert {sample.label_name[0] for sample in samples} <= set(lung.card.classes)


def test_the_index_of_a_tar_is_the_one_that_energon_would_make(lung: Converted, tmp_path: Path) -> None:
    prepare = pytest.importorskip("megatron.energon.flavors.webdataset.prepare")
    path = pytest.importorskip("megatron.energon.epathlib").EPath(str(tmp_path))
    ours = sorted(lung.folder.glob("*.tar.idx"))
    for index in ours:
        (tmp_path / index.stem).symlink_to(lung.folder / index.stem)
        list(prepare.WebdatasetPreparator._preprocess_tar(index.stem, {index.stem: 0}, path, 50))
        assert (tmp_path / index.name).read_bytes() == index.read_bytes()
    assert len(ours) == len(lung.card.shards)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_croissant_validates_and_gives_the_index(lung: Converted) -> None:
    croissant = pytest.importorskip("mlcroissant")
    found = croissant.Dataset(str(lung.folder / "croissant.json"))
    assert not found.metadata.ctx.issues.errors
    samples = list(found.records("samples"))
    rows = read_index(lung.folder / "index.parquet").to_pylist()
    assert [(s["samples/key"].decode(), s["samples/label"]) for s in samples] == [(r["key"], r["label"]) for r in rows]
    names = [record["classes/name"] for record in found.records("classes")]
    assert [name.decode() if isinstance(name, bytes) else name for name in names] == lung.card.classes


# --- a task of both formats


@pytest.fixture
def mixed(tmp_path: Path, dpconvert: Callable[..., Answer]) -> Path:
    """Twelve PNG and twelve JPEG files of two classes; JPEG comes late in the shards."""
    for number in range(24):
        kind, name = ("png" if number < 12 else "jpg"), ("no", "yes | maybe")[number % 2]
        path = tmp_path / "source" / name / f"{number:02}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), 8 * number, np.uint8)).save(path)
    (tmp_path / "my.toml").write_text(
        'task = "Mixed"\nclasses = ["no", "yes | maybe"]\nshape = "folders"\n[files.images]\n'
        "pattern = '^(?P<class>[^/]+)/(?P<name>[^/]+)\\.(png|jpg)$'\n[split.strict]\nshare = [0.5, 0.25, 0.25]\n"
    )
    answer = dpconvert(tmp_path / "my.toml", "--source", tmp_path / "source", "--out", tmp_path / "out", *QUIETLY)
    assert (answer.code, answer.err) == (0, "")
    return tmp_path / "out" / "Mixed"


def test_datasets_reads_a_task_of_both_formats(mixed: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset(str(mixed), cache_dir=str(tmp_path / "cache"))
    made = load(mixed).splits
    assert {split: len(found[split]) for split in found} == {split: of.samples for split, of in made.items()}
    for row in found["train"]:
        assert (row["png"] is None) != (row["jpg"] is None)


def test_the_info_file_counts_what_the_card_counts(mixed: Path) -> None:
    told: dict[str, Any] = json.loads((mixed / "_info.json").read_bytes())["splits"]
    made = load(mixed).splits
    assert {split: of["num_samples"] for split, of in told.items()} == {s: of.samples for s, of in made.items()}
    assert all(sum(of["shard_lengths"]) == of["num_samples"] for of in told.values())


def test_an_index_holds_where_samples_begin_and_the_last_one_ends(mixed: Path) -> None:
    rows = [row for row in read_index(mixed / "index.parquet").to_pylist() if row["shard"] == "train-000000.tar"]
    data = (mixed / "train-000000.tar.idx").read_bytes()
    *starts, end = struct.unpack(f"<{len(data) // 8}Q", data)
    assert starts == [row["offset"] - 512 for row in rows]
    tar = (mixed / "train-000000.tar").read_bytes()
    assert tar[end:].strip(b"\0") == b""
    assert tar[end - 512 : end].strip(b"\0") != b""


def test_the_card_of_a_task_says_what_one_must_know(lung: Converted) -> None:
    text = (lung.folder / "README.md").read_text()
    assert text.startswith("---\nlicense: other\n")
    for told in (lung.card.licence.name, lung.card.citation, lung.card.digest, "use the test set once"):
        assert told in text


def test_side_files_are_listed_and_go_with_an_overwritten_conversion(
    mixed: Path, tmp_path: Path, dpconvert: Callable[..., Answer]
) -> None:
    listed = {side.name for side in load(mixed).side_files}
    real = {str(path.relative_to(mixed)) for path in mixed.rglob("*") if path.is_file()}
    tars = {shard.name for shard in load(mixed).shards}
    assert real - tars - {".lock", "index.parquet", "task.json"} == listed
    again = ["--source", tmp_path / "source", "--out", mixed.parent, *QUIETLY, "--overwrite", "--samples-per-shard", 4]
    before = {name: (mixed / name).read_bytes() for name in listed}
    assert dpconvert(tmp_path / "my.toml", *again).code == 0
    assert dpconvert("verify", mixed, *QUIETLY).code == 0
    assert len(list(mixed.glob("*.idx"))) == len(load(mixed).shards) > len(tars)
    assert dpconvert(tmp_path / "my.toml", *again[:-2]).code == 0
    assert {name: (mixed / name).read_bytes() for name in listed} == before
    (mixed / ".nv-meta" / "split.yaml").write_bytes(b"{}")
    answer = dpconvert("verify", mixed, *QUIETLY)
    assert answer.code == 1
    assert ".nv-meta/split.yaml: changed since it was written" in answer.err
