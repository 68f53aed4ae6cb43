"""Tiny synthetic sources in their original layouts, drawn with a seed: for the demo and for the tests.

Each reader's `fake(tree)` says which files there are; this module draws them. Classes look different enough for a
network to learn them: they differ in the density, size and colour of nuclei.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import tifffile
from numpy.typing import NDArray
from PIL import Image as Pillow

from dpconvert.errors import OutputError, UsageError
from dpconvert.manifest import Manifest

Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]
STROMA = np.array([[236, 200, 220], [225, 180, 205], [240, 215, 230], [215, 170, 190], [230, 190, 225]], float)
NUCLEI = np.array([[90, 50, 130], [60, 60, 150], [120, 40, 100], [70, 90, 120], [130, 60, 60]], float)


def draw_fake(manifest: Manifest, out: Path, seed: int = 0) -> Path:
    """Draw the fake of a source into `out/<name>` and return that folder.

    Raises:
        UsageError: this source has no fake.
        OutputError: the folder is there already and not empty.
    """
    from dpconvert.sources import reader, with_defaults

    module = reader(manifest)
    if not hasattr(module, "fake"):
        raise UsageError("this source has no fake", where=manifest.path)
    folder = out / manifest.name
    if folder.exists() and any(folder.iterdir()):
        raise OutputError("not empty", where=folder, remedy="choose another --out")
    part = folder.with_name(f".{folder.name}.part")  # takes its name when it is whole
    shutil.rmtree(part, ignore_errors=True)
    module.fake(FakeTree(part, with_defaults(manifest), seed))
    if folder.exists():
        folder.rmdir()
    part.rename(folder)
    return folder


class FakeTree:
    """A folder to draw into. Names are relative to it; folders are made as needed."""

    def __init__(self, root: Path, manifest: Manifest, seed: int = 0) -> None:
        self.root, self.manifest = root, manifest
        self.random = np.random.default_rng([seed, *manifest.name.encode()])

    def picture(self, width: int, height: int, look: int = 0, nuclei: Points | None = None) -> Pixels:
        """Tissue of one look (a class number) with nuclei at given points, or at random."""
        noise = self.random.normal(0, 9, (height // 4 + 1, width // 4 + 1, 1)).repeat(4, 0).repeat(4, 1)
        pixels = STROMA[look % 5] + noise[:height, :width] + self.random.normal(0, 4, (height, width, 1))
        if nuclei is None:
            nuclei = self.points(width, height, max(2, width * height * (1 + look % 4) // 6000))
        radius = 4 + look % 3 * 2
        for x, y in nuclei:
            top, left = int(max(y - radius, 0)), int(max(x - radius, 0))
            patch = pixels[top : int(y + radius) + 1, left : int(x + radius) + 1]
            rows, columns = np.mgrid[: patch.shape[0], : patch.shape[1]]
            disc = (rows + top - y) ** 2 + (columns + left - x) ** 2 <= radius**2
            patch[disc] = NUCLEI[look % 5] + self.random.normal(0, 12, (disc.sum(), 1))
        drawn: Pixels = pixels.clip(0, 255).astype(np.uint8)
        return drawn

    def points(self, width: int, height: int, count: int) -> Points:
        """Places (count, 2) of x, y, not on whole numbers."""
        return self.random.uniform(1, [width - 1, height - 1], (count, 2))

    def write(self, name: str, data: bytes | str) -> None:
        """A file of these bytes."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())

    def save(self, name: str, pixels: NDArray[Any], **options: Any) -> None:
        """A picture in the format of its name's extension; TIFFs through Pillow, `compression` as there."""
        buffer = io.BytesIO()
        kind = {"jpg": "JPEG", "tif": "TIFF"}.get(name.rpartition(".")[2], name.rpartition(".")[2].upper())
        Pillow.fromarray(pixels).save(buffer, kind, **options)
        self.write(name, buffer.getvalue())

    def save_planar(self, name: str, pixels: Pixels) -> None:
        """A PackBits TIFF that stores its colour planes one after the other, as some of Janowczyk's are."""
        buffer = io.BytesIO()
        planes = np.moveaxis(pixels, 2, 0)
        tifffile.imwrite(buffer, planes, photometric="rgb", planarconfig="separate", compression="packbits")
        self.write(name, buffer.getvalue())

    def save_mat(self, name: str, variable: str, points: Points) -> None:
        """A MATLAB 5 file of points; without points the empty byte array that the real ones hold."""
        buffer = io.BytesIO()
        values = points if len(points) else np.zeros((0, 2), np.uint8)
        scipy.io.savemat(buffer, {variable: values})  # type: ignore[arg-type]
        self.write(name, buffer.getvalue())

    def slide(self, name: str, pixels: Pixels, *, mpp: float = 0.25, levels: int = 3) -> None:
        """A tiled pyramidal TIFF (JPEG, 256 px tiles) with its resolution stated, as OpenSlide opens it."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        per_cm = 1e4 / mpp
        with tifffile.TiffWriter(path) as tiff:
            for level in range(levels):
                tiff.write(
                    np.ascontiguousarray(pixels[:: 2**level, :: 2**level]),
                    tile=(256, 256),
                    compression="jpeg",
                    compressionargs={"level": 90},
                    photometric="rgb",
                    resolution=(per_cm / 2**level, per_cm / 2**level),
                    resolutionunit="CENTIMETER",
                    subfiletype=1 if level else 0,
                    metadata=None,
                )

    def tissue_slide(
        self, width: int, height: int, regions: Sequence[tuple[float, float, float, float]] = (), padding: int = 0
    ) -> Pixels:
        """White glass with a piece of tissue, darker in `regions` (x, y, width, height), black in a right margin."""
        pixels = np.full((height, width, 3), 243, np.uint8)
        inner = self.picture(width * 3 // 4, height * 3 // 4)
        top, left = height // 8, width // 8
        pixels[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
        for x, y, w, h in regions:
            pixels[int(y) : int(y + h), int(x) : int(x + w)] = self.picture(int(w), int(h), look=3)
        if padding:
            pixels[:, -padding:] = 0
        return pixels

    def asap(self, name: str, annotations: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> None:
        """ASAP XML of (group, ring) polygons, rings not closed."""
        lines = ['<?xml version="1.0"?>', "<ASAP_Annotations>", "<Annotations>"]
        for number, (group, ring) in enumerate(annotations):
            lines.append(
                f'<Annotation Name="Annotation {number}" Type="Polygon" PartOfGroup="{group}" Color="#F4FA58">'
            )
            lines += ["<Coordinates>"]
            lines += [f'<Coordinate Order="{i}" X="{x}" Y="{y}" />' for i, (x, y) in enumerate(ring)]
            lines += ["</Coordinates>", "</Annotation>"]
        lines += ["</Annotations>", "<AnnotationGroups>"]
        lines += [
            f'<Group Name="{group}" PartOfGroup="None" Color="#00ff00"><Attributes /></Group>'
            for group in sorted({group for group, _ in annotations})
        ]
        lines += ["</AnnotationGroups>", "</ASAP_Annotations>"]
        self.write(name, "\n".join(lines))

    def cytomine(self, slides: int, terms: int) -> None:
        """An export of a Cytomine project: slides, and objects outlined in WKT with y up.

        Holds the traps of real ones: an annotation without a term, one with two, a reviewed copy beside its original,
        one that lies partly outside its image, a MULTIPOLYGON.
        """
        names = [f"Structure {number}" for number in range(terms)]
        term_ids = [4762 + number for number in range(terms)]
        images, annotations = [], []
        for s in range(slides):
            width, height = 512 + 64 * (s % 3), 512
            pixels = np.full((height, width, 3), 243, np.uint8)
            image = 1000 + s
            images.append(
                {
                    "id": image,
                    "baseImage": 500 + s,
                    "originalFilename": f"M{s:02}.tif",
                    "width": width,
                    "height": height,
                }
            )
            for k in range(2 * terms):
                x, y = 8 + k * 97 % (width - 120), 8 + k * 61 % (height - 120)
                w, h = (int(n) for n in self.random.integers(64, 100, 2))
                pixels[y : y + h, x : x + w] = self.picture(w, h, look=k % terms)
                annotations.append(
                    _cytomine_annotation(10_000 * s + k + 1, image, term_ids[k % terms], x, y, w, h, height)
                )
            self.slide(f"slides/M{s:02}.tif", pixels, levels=1)
        _cytomine_traps(annotations)
        listing = [{"id": i, "name": n, "color": "#ff0000"} for i, n in zip(term_ids, names, strict=True)]
        for file, entries in (("annotations", annotations), ("images", images), ("terms", listing)):
            self.write(f"{file}.json", json.dumps({"collection": entries, "size": len(entries), "offset": 0}))


def _cytomine_annotation(
    number: int, image: int, term: int, x: int, y: int, w: int, h: int, height: int
) -> dict[str, Any]:
    top, bottom = height - y, height - y - h
    ring = f"(({x} {bottom}, {x + w} {bottom}, {x + w} {top}, {x} {top}, {x} {bottom}))"
    return {"id": number, "image": image, "term": [term], "location": f"POLYGON {ring}", "reviewed": False}


def _cytomine_traps(annotations: list[dict[str, Any]]) -> None:
    first = annotations[0]
    annotations.append(first | {"id": 900_001, "term": []})
    annotations.append(first | {"id": 900_002, "parentIdent": first["id"], "reviewed": True})
    annotations[1]["term"] = [*annotations[1]["term"], first["term"][0]]
    annotations[2]["location"] = annotations[2]["location"].replace("POLYGON ((", "MULTIPOLYGON (((") + ")"
    annotations.append(first | {"id": 900_003, "location": "POLYGON ((-40 -40, 60 -40, 60 60, -40 60, -40 -40))"})
