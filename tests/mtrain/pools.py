"""Tiny pools of shards for the tests: the contract on disk, written with tarfile and pyarrow.

Images are noise around a colour that tells the class, so that a network can learn them within a few steps.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dpconvert import card as cards
from tests.task_cards import write_card

SIZES = {"train": 24, "val": 8, "test": 8}


def write_pool(folder: Path, names: Sequence[str] = ("Alpha", "Beta", "Gamma"), **options: Any) -> Path:
    """A folder of shards with these tasks: two classes each, three for every third."""
    for number, name in enumerate(names):
        write_task(folder / name, seed=number, classes=3 if number % 3 == 2 else 2, **options)
    return folder


def write_task(
    folder: Path,
    *,
    classes: int = 2,
    sizes: Mapping[str, int] = SIZES,
    shape: tuple[int, int] = (40, 32),
    image_format: str = "png",
    related: Sequence[str] = (),
    seed: int = 0,
    shard_samples: int = 10,
    attributes: Callable[[str, int], Mapping[str, str]] = lambda _split, _number: {},
) -> Path:
    """One task of `sizes` samples a split, images of `shape` (height, width), four samples a group.

    `attributes` of a sample come from its split and its number there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    shards: list[cards.ShardCard] = []
    for split, size in sizes.items():
        labels = [i % classes for i in range(size)]
        draw_images = [draw_image(label, shape, image_format, rng) for label in labels]
        for start in range(0, size, shard_samples):
            name = f"{split}-{start // shard_samples:06d}.tar"
            samples = [
                (f"{folder.name.lower()}-{split}-{i:05d}", labels[i], draw_images[i])
                for i in range(start, min(start + shard_samples, size))
            ]
            rows += _write_shard(folder / name, split, samples, image_format)
            data = (folder / name).read_bytes()
            shards.append(
                cards.ShardCard(name=name, split=split, samples=len(samples), size=len(data), sha256=_sha256(data))  # type: ignore[arg-type]
            )
    for row in rows:
        row["attributes"] = json.dumps(attributes(row["split"], int(row["key"].rsplit("-", 1)[1])))
    index = write_index(folder, rows)
    splits = {split: _split_card([r for r in rows if r["split"] == split], classes) for split in sizes}
    return write_card(
        folder,
        shards,
        index,
        splits,
        task=folder.name,
        title=folder.name,
        classes=[f"class-{i}" for i in range(classes)],
        metric="accuracy" if classes > 2 else "roc_auc",
        organ="none",
        stain="none",
        split_policy="random",
        related=list(related),
        licence=cards.Licence(name="CC0-1.0", open=True),
    )


def write_index(folder: Path, rows: Sequence[Mapping[str, Any]]) -> cards.FileCard:
    """index.parquet from row dictionaries; answers its entry of task.json."""
    schema = pa.schema(
        [(name, pa.string()) for name in ("key", "split", "shard", "format", "group", "source", "sha256", "attributes")]
        + [(name, pa.int64()) for name in ("offset", "length")]
        + [(name, pa.int32()) for name in ("label", "x", "y", "width", "height", "stored_width", "stored_height")]
    )
    path = folder / cards.INDEX_NAME
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)
    data = path.read_bytes()
    return cards.FileCard(name=path.name, size=len(data), sha256=_sha256(data))


def draw_image(label: int, shape: tuple[int, int], image_format: str, rng: np.random.Generator) -> bytes:
    """An encoded noise image whose mean colour tells the label."""
    centre = np.full(3, 80.0)
    centre[label % 3] = 180.0
    pixels = np.clip(rng.normal(centre, 25.0, (*shape, 3)), 0, 255).astype(np.uint8)
    return encode(Image.fromarray(pixels), image_format)


def encode(image: Image.Image, image_format: str) -> bytes:
    """PNG or JPEG bytes."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if image_format == "jpg" else {}
    image.save(buffer, format={"jpg": "JPEG", "png": "PNG"}[image_format], **options)
    return buffer.getvalue()


def _write_shard(
    path: Path, split: str, samples: Sequence[tuple[str, int, bytes]], image_format: str
) -> list[dict[str, Any]]:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, label, image in samples:
            fields = {image_format: image, "cls": str(label).encode(), "json": b"{}"}
            for field, data in fields.items():
                member = tarfile.TarInfo(f"{key}.{field}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    by_key = {key: (label, image) for key, label, image in samples}
    rows = []
    with tarfile.open(path) as tar:
        for member in tar:
            key, field = member.name.split(".")
            if field == image_format:
                label, image = by_key[key]
                rows.append(_row(member, split, path.name, label, image))
    return rows


def _row(member: tarfile.TarInfo, split: str, shard: str, label: int, image: bytes) -> dict[str, Any]:
    key, field = member.name.split(".")
    number = int(key.rsplit("-", 1)[1])
    width, height = Image.open(io.BytesIO(image)).size
    return {
        "key": key,
        "split": split,
        "shard": shard,
        "offset": member.offset_data,
        "length": member.size,
        "format": field,
        "label": label,
        "group": f"toy:{split}-{number // 4}",
        "source": member.name,
        "x": 0,
        "y": 0,
        "width": width,
        "height": height,
        "stored_width": width,
        "stored_height": height,
        "sha256": _sha256(image),
        "attributes": "{}",
    }


def _split_card(rows: Sequence[Mapping[str, Any]], classes: int) -> cards.SplitCard:
    counts = [sum(row["label"] == label for row in rows) for label in range(classes)]
    return cards.SplitCard(samples=len(rows), classes=counts, groups=len({row["group"] for row in rows}))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
