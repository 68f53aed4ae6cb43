"""Tiny tasks with masks and points for the tests: the contract on disk, written with tarfile and pyarrow.

An image is dark noise with a few bright discs. The mask tells the discs (1) from the rest (0), with an unannotated
border (255); the points are the discs' centres. The class is whether there is a disc at all.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from dpconvert import card as cards
from tests.mtrain.pools import encode, write_pool
from tests.task_cards import write_card

SIZES = {"train": 16, "val": 8, "test": 8}
RADIUS = 5.0
Sample = tuple[NDArray[np.uint8], NDArray[np.uint8], list[list[float]]]  # pixels, mask, points


def write_mixed_pool(folder: Path, **options: Any) -> Path:
    """Two classification tasks, one with masks, one with points."""
    write_pool(folder, ("Alpha", "Beta"))
    write_dense_task(folder / "Masks", seed=5, kinds=("seg",), **options)
    write_dense_task(folder / "Points", seed=6, kinds=("points",), **options)
    return folder


def draw_sample(rng: np.random.Generator, shape: tuple[int, int] = (48, 40), discs: int = 2) -> Sample:
    """An image with up to this many discs: pixels (h, w, 3), mask (h, w), and points."""
    height, width = shape
    pixels = rng.normal(60, 15, (height, width, 3))
    mask = np.zeros(shape, np.uint8)
    points: list[list[float]] = []
    rows, columns = np.mgrid[:height, :width] + 0.5
    for _ in range(int(rng.integers(discs + 1))):
        x, y = (round(float(rng.uniform(7, side - 7)), 2) for side in (width, height))
        inside = (columns - x) ** 2 + (rows - y) ** 2 <= RADIUS**2
        mask[inside] = 1
        pixels[inside] += (120, 60, 0)
        points.append([x, y, 0])
    mask[:2] = mask[-2:] = 255
    return np.clip(pixels, 0, 255).astype(np.uint8), mask, points


def write_dense_task(
    folder: Path,
    *,
    kinds: Sequence[str] = ("seg", "points"),
    sizes: Mapping[str, int] = SIZES,
    seed: int = 0,
    samples: Mapping[str, Sequence[Sample]] | None = None,
    radius_px: float | None = RADIUS,
) -> Path:
    """One task with targets of these kinds, two samples a group; `samples` of each split replace the drawn ones."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    shards: list[cards.ShardCard] = []
    drawn = samples or {split: [draw_sample(rng) for _ in range(size)] for split, size in sizes.items()}
    for split, of_split in drawn.items():
        path = folder / f"{split}-000000.tar"
        rows += [_row(folder.name, split, number, sample, path.name) for number, sample in enumerate(of_split)]
        _write_shard(path, rows[-len(of_split) :], of_split, kinds)
        data = path.read_bytes()
        shards.append(
            cards.ShardCard(name=path.name, split=split, samples=len(of_split), size=len(data), sha256=_sha256(data))  # type: ignore[arg-type]
        )
    index = _write_index(folder, rows, kinds)
    splits = {split: _split_card([row for row in rows if row["split"] == split]) for split in drawn}
    return write_card(
        folder,
        shards,
        index,
        splits,
        task=folder.name,
        title=folder.name,
        kind="segmentation",
        classes=["none", "disc"],
        organ="none",
        stain="none",
        split_policy="random",
        licence=cards.Licence(name="CC0-1.0", open=True),
        dense=cards.DenseCard(
            seg=cards.SegCard(classes=["other", "disc"]) if "seg" in kinds else None,
            points=cards.PointsCard(classes=["disc"], radius_um=2.5, radius_px=radius_px, exhaustive=True)
            if "points" in kinds
            else None,
            instances=cards.InstancesCard(classes=["disc"], exhaustive=True) if "instances" in kinds else None,
        ),
    )


def instances(mask: NDArray[np.uint8], points: list[list[float]]) -> list[list[int]]:
    """Of each disc, the runs of its pixels, those of the mask to which no other centre is nearer; and its class."""
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    far = [(columns - x) ** 2 + (rows - y) ** 2 for x, y, _ in points]
    found = []
    for number in range(len(points)):
        cells = ((mask == 1) & (np.argmin(far, axis=0) == number)).ravel()
        starts = [at for at in np.flatnonzero(cells).tolist() if at == 0 or not cells[at - 1]]
        runs = [
            (at, next(n for n in range(at, len(cells) + 1) if n == len(cells) or not cells[n]) - at) for at in starts
        ]
        found.append([*(value for run in runs for value in run), 0])
    return found


def png(mask: NDArray[np.uint8]) -> bytes:
    """A mask as it is stored: mode L."""
    buffer = io.BytesIO()
    Image.fromarray(mask, "L").save(buffer, format="PNG")
    return buffer.getvalue()


def _row(task: str, split: str, number: int, sample: Sample, shard: str) -> dict[str, Any]:
    _, mask, points = sample
    height, width = mask.shape
    return {
        "key": f"{task.lower()}-{split}-{number:05d}",
        "split": split,
        "shard": shard,
        "format": "png",
        "label": int(bool(points)),
        "group": f"toy:{task}-{split}-{number // 2}",
        "source": "",
        "x": 0,
        "y": 0,
        "width": width,
        "height": height,
        "stored_width": width,
        "stored_height": height,
        "attributes": "{}",
        "objects": len(points),
    }


def _write_shard(path: Path, rows: Sequence[dict[str, Any]], samples: Sequence[Sample], kinds: Sequence[str]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for row, (pixels, mask, points) in zip(rows, samples, strict=True):
            image, seg = encode(Image.fromarray(pixels), "png"), png(mask)
            text = {"mpp_stored": 0.5, "stored_width": mask.shape[1], "stored_height": mask.shape[0]}
            text |= {"points": points} if "points" in kinds else {}
            text |= {"instances": instances(mask, points)} if "instances" in kinds else {}
            fields = {
                "png": image,
                "cls": str(row["label"]).encode(),
                "seg.png": seg,
                "json": json.dumps(text).encode(),
            }
            for field, data in fields.items():
                if field == "seg.png" and "seg" not in kinds:
                    continue
                member = tarfile.TarInfo(f"{row['key']}.{field}")
                member.size = len(data)
                prefix = {"png": "", "seg.png": "seg_"}.get(field)
                if prefix is not None:
                    row |= {f"{prefix}offset": tar.offset + 512, f"{prefix}length": len(data)}
                    row[f"{prefix}sha256"] = _sha256(data)
                tar.addfile(member, io.BytesIO(data))


def _write_index(folder: Path, rows: Sequence[Mapping[str, Any]], kinds: Sequence[str]) -> cards.FileCard:
    texts = ["key", "split", "shard", "format", "group", "source", "sha256", "attributes"]
    large = ["offset", "length"]
    small = ["label", "x", "y", "width", "height", "stored_width", "stored_height"]
    if "seg" in kinds:
        texts, large = [*texts, "seg_sha256"], [*large, "seg_offset", "seg_length"]
    if "points" in kinds:
        small = [*small, "objects"]
    kind_of = {pa.string(): texts, pa.int64(): large, pa.int32(): small}
    schema = pa.schema([(name, kind) for kind, names in kind_of.items() for name in names])
    path = folder / cards.INDEX_NAME
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), path)
    data = path.read_bytes()
    return cards.FileCard(name=path.name, size=len(data), sha256=_sha256(data))


def _split_card(rows: Sequence[Mapping[str, Any]]) -> cards.SplitCard:
    counts = [sum(row["label"] == label for row in rows) for label in range(2)]
    return cards.SplitCard(samples=len(rows), classes=counts, groups=len({row["group"] for row in rows}))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
