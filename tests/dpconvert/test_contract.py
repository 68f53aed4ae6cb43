"""What every source keeps, on its fake: a new manifest is covered as soon as it is there."""

from __future__ import annotations

import gc
import hashlib
import io
import json
import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import webdataset as wds
from PIL import Image

from dpconvert.plan import plan
from dpconvert.plan.options import Options
from dpconvert.readers.fakes import draw_fake
from dpconvert.runtime.progress import Reporter
from dpconvert.shards.index import read_index
from dpconvert.source import cache
from dpconvert.source.files import Source
from dpconvert.tasks.verify import verify
from tests.dpconvert.conftest import EVERY_SOURCE, Answer, Converted

Get = Callable[[str], Converted]
DECODED = 8  # samples that another reader decodes
KEY = re.compile(r"[a-z0-9_-]+")
NUMBER_OR_NONE = (int, float, type(None))
JSON_FIELDS: dict[str, Any] = {
    "task": str,
    "label": int,
    "label_name": str,
    "group": str,
    "group_kind": str,
    "split": str,
    "source": str,
    "files": list,
    "picture": str,
    "x": int,
    "y": int,
    "width": int,
    "height": int,
    "stored_width": int,
    "stored_height": int,
    "mpp_requested": NUMBER_OR_NONE,
    "mpp_read": NUMBER_OR_NONE,
    "mpp_stored": NUMBER_OR_NONE,
    "stain": str,
    "organ": str,
    "attributes": dict,
}
OF_LABELS = {"label": "labels", "label_name": "label_names"}  # of images with any number of classes

pytestmark = pytest.mark.parametrize("name", EVERY_SOURCE)


@pytest.mark.stress  # draws every fake once more; test_fakes.py draws some
def test_the_fake_is_the_same_for_the_same_seed(name: str, converted: Get, tmp_path: Path) -> None:
    source = converted(name)
    again = draw_fake(source.manifest, tmp_path)
    assert digests(again) == digests(source.source)


def test_the_shards_are_as_they_were_written(name: str, converted: Get) -> None:
    assert verify(converted(name).folder, workers=1, report=Reporter(quiet=True))[1] == []


def test_the_card_says_what_the_task_is(name: str, converted: Get) -> None:
    manifest, card = converted(name).manifest, converted(name).card
    assert (card.task, card.source) == (manifest.task, manifest.name)
    assert card.licence == manifest.licence
    assert card.licence.name
    assert card.citation
    assert card.split_policy == "strict"
    assert card.classes == (manifest.classes or card.classes)
    unordered = "roc_auc" if len(card.classes) == 2 else "accuracy"
    of_kind = {"ordinal": ("quadratic_kappa", 2), "multilabel": ("macro_auc", 3)}
    assert (card.metric, card.schema_version) == of_kind.get(manifest.kind, (unordered, 1))
    assert card.failures == []
    if not as_many_files_as_the_release(converted(name)):
        assert [d for d in card.expectations if not d.reason] == []


def test_every_class_occurs_in_every_split_that_is_not_empty(name: str, converted: Get) -> None:
    card = converted(name).card
    assert {"train", "test"} <= set(card.splits)
    counts = {split: dict(zip(card.classes, of.classes, strict=True)) for split, of in card.splits.items()}
    assert [(s, c) for s, classes in counts.items() for c, n in classes.items() if not n] == []


def test_keys_are_unique_and_plain(name: str, converted: Get) -> None:
    keys = Counter(row["key"] for row in index_of(converted(name)))
    assert [key for key, count in keys.items() if count > 1 or not KEY.fullmatch(key)] == []


def test_no_group_is_in_two_splits(name: str, converted: Get) -> None:
    homes: dict[str, set[str]] = defaultdict(set)
    for row in index_of(converted(name)):
        homes[row["group"]].add(row["split"])
    assert [group for group, splits in homes.items() if len(splits) > 1] == []
    assert all(group.startswith(f"{converted(name).manifest.namespace}:") for group in homes)
    assert all(group.partition(":")[2] for group in homes)


def test_a_sample_has_the_documented_fields(name: str, converted: Get) -> None:
    card, rows = converted(name).card, index_of(converted(name))
    members = [member for shard in card.shards for member in read_tar(converted(name).folder / shard.name)]
    cls = ["cls"] if card.target == "class" else []
    assert [n for n, _ in members] == [f"{r['key']}.{e}" for r in rows for e in (r["format"], *cls, "json")]
    size = 2 + len(cls)
    for row, (_, label), (_, text) in zip(rows, members[1::size], members[size - 1 :: size], strict=True):
        fields = json.loads(text)
        documented = JSON_FIELDS if cls else {OF_LABELS.get(k, k): kind for k, kind in JSON_FIELDS.items()}
        assert list(fields) == sorted(documented)
        assert [k for k, kind in documented.items() if k in JSON_FIELDS and not isinstance(fields[k], kind)] == []
        if cls:
            assert int(label) == fields["label"] == row["label"]
            assert fields["label_name"] == card.classes[row["label"]]
        else:
            assert fields["labels"] == row["labels"]
            assert fields["label_names"] == [card.classes[one] for one in row["labels"]]
        assert {k: fields[k] for k in ("split", "group", "x", "y", "width", "height")} == {
            k: row[k] for k in ("split", "group", "x", "y", "width", "height")
        }
        assert all(lies_in(converted(name).source, file) for file in fields["files"])


def test_offsets_of_the_index_lead_to_the_image(name: str, converted: Get) -> None:
    for row in index_of(converted(name)):
        with (converted(name).folder / row["shard"]).open("rb") as file:
            file.seek(row["offset"])
            data = file.read(row["length"])
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
        with Image.open(io.BytesIO(data)) as image:
            assert image.size == (row["stored_width"], row["stored_height"])
            assert image.format == {"png": "PNG", "jpg": "JPEG"}[row["format"]]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves closing its files to the collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_shards_as_they_are(name: str, converted: Get) -> None:
    card = converted(name).card
    shards = [str(converted(name).folder / shard.name) for shard in card.shards]
    gc.disable()  # what is made stays in the youngest generation, so that collecting it takes no second
    try:
        samples = list(wds.WebDataset(shards, shardshuffle=False))
        decoded = list(islice(wds.WebDataset(shards, shardshuffle=False).decode("pil"), DECODED))
        gc.collect(0)
    finally:
        gc.enable()
    assert len(samples) == card.samples()
    for sample in samples:
        fields = {field for field in sample if not field.startswith("__")}
        (image,) = fields & {"png", "jpg"}
        assert fields == {image, "json"} | ({"cls"} if card.target == "class" else set())
    for sample in decoded:
        assert isinstance(sample.get("png", sample.get("jpg")), Image.Image)
        assert 0 <= sample.get("cls", 0) < len(card.classes)
        assert sample["json"]["task"] == card.task


def test_show_prints_the_licence_and_the_classes(name: str, converted: Get, dpconvert: Callable[..., Answer]) -> None:
    answer, manifest = dpconvert("show", name), converted(name).manifest
    assert (answer.code, answer.err) == (0, "")
    for fact in (manifest.task, manifest.licence.name, manifest.citation, *manifest.classes):
        assert fact in answer.out


def test_the_paper_s_split_can_be_planned(name: str, converted: Get) -> None:
    manifest = converted(name).manifest
    if "paper" not in manifest.split:
        return
    source = Source.open(converted(name).source, manifest)
    made = plan.make(source, Options(split="paper"), 1, Reporter(quiet=True))
    assert {row.split for row in made.rows} >= {"train", "test"}
    assert {row.label for row in made.rows} == set(range(len(made.classes)))


def test_the_sets_of_eva_can_be_planned(name: str, converted: Get) -> None:
    options = Options(split="eva")
    manifest = options.applied_to(converted(name).manifest)
    if "eva" not in manifest.split:
        return
    source = Source.open(converted(name).source, manifest)
    made = plan.make(source, options, 1, Reporter(quiet=True))
    named = manifest.policy("eva").named()
    if not named or {row.group.partition(":")[2] for row in made.rows} & named.keys():
        assert {row.split for row in made.rows} == manifest.expected.eva.keys()
    assert {(row.split, row.label) for row in made.rows} >= {("train", label) for label in range(len(made.classes))}
    homes = {(row.group, row.split) for row in made.rows}
    assert len(homes) == len({group for group, _ in homes})


def as_many_files_as_the_release(converted: Converted) -> bool:
    """Where files hold many images each, a fake has as many of them, and its counts differ without a reason."""
    source = Source.open(converted.source, converted.manifest)
    kinds = converted.manifest.files.items()
    return all(len(source.match(name)) >= (kind.expected or 1) for name, kind in kinds if not kind.optional)


def lies_in(source: Path, file: str) -> bool:
    """Whether a file is there, or the archive or array that holds it."""
    return any((source / part).is_file() for part in (file, *map(str, PurePosixPath(file).parents)))


def index_of(converted: Converted) -> list[dict[str, Any]]:
    """The rows of index.parquet."""
    rows: list[dict[str, Any]] = read_index(converted.folder / "index.parquet").to_pylist()
    return rows


def read_tar(path: Path) -> list[tuple[str, bytes]]:
    """(name, bytes) of every member."""
    with tarfile.open(path) as tar:
        return [(member.name, file.read()) for member in tar if (file := tar.extractfile(member))]


def digests(folder: Path) -> dict[str, str]:
    """Relative name -> sha256 of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and cache.FOLDER not in path.parts)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
