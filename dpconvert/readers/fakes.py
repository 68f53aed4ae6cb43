"""Tiny synthetic sources in their original layouts, drawn with a seed: for the demo and for the tests.

Each reader's `fake(tree)` says which files there are; this module draws them. Classes look different enough for a
network to learn them: they differ in the density, size and colour of nuclei.
"""

from __future__ import annotations

import gzip
import io
import re
import shutil
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image as Pillow

from dpconvert.errors import OutputError, UsageError
from dpconvert.manifest.model import Manifest
from dpconvert.source.folder import FAKE
from dpconvert.source.record import hashed

Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]
Colour = int | tuple[int, int, int]
STROMA = np.array([[236, 200, 220], [225, 180, 205], [240, 215, 230], [215, 170, 190], [230, 190, 225]], float)
TEXTURE = 500  # no multiple of a patch's size: repeated pieces meet patches at other places
MAT_HEAD = b"MATLAB 5.0 MAT-file, a fake".ljust(116)  # the writer's own text holds the time
WRITTEN = re.compile(rb"\d{4}-\d\d-\d\dT[\d:]+Z")
NUCLEI = np.array([[90, 50, 130], [60, 60, 150], [120, 40, 100], [70, 90, 120], [130, 60, 60]], float)


def draw_fake(manifest: Manifest, out: Path, seed: int = 0) -> Path:
    """Draw the fake of a source into `out/<name>` and return that folder.

    Raises:
        UsageError: this source has no fake.
        OutputError: the folder exists already and is not empty, or cannot be written.
    """
    from dpconvert.readers import reader, with_defaults

    module = reader(manifest)
    if not hasattr(module, "fake"):
        raise UsageError("this source has no fake", where=manifest.path)
    folder = out / manifest.name
    part = folder.with_name(f".{folder.name}.part")  # takes its name when it is whole
    try:
        if folder.exists() and any(folder.iterdir()):
            raise OutputError("not empty", where=folder, remedy="choose another --out")
        shutil.rmtree(part, ignore_errors=True)
        module.fake(FakeTree(part, with_defaults(manifest), seed))
        (part / FAKE).touch()
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", where=folder, remedy="choose another --out") from None
    return folder


class FakeTree:
    """A folder to draw into. Names are relative to it; folders are made as needed."""

    def __init__(self, root: Path, manifest: Manifest, seed: int = 0) -> None:
        self.root, self.manifest = root, manifest
        self.random = np.random.default_rng([seed, *manifest.name.encode()])
        self._textures: dict[int, Pixels] = {}

    def image(self, width: int, height: int, look: int = 0, nuclei: Points | None = None) -> Pixels:
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
        """An image in the format of its name's extension; TIFFs through Pillow, `compression` as there."""
        buffer = io.BytesIO()
        kind = {"jpg": "JPEG", "tif": "TIFF"}.get(name.rpartition(".")[2], name.rpartition(".")[2].upper())
        Pillow.fromarray(pixels).save(buffer, kind, **options)
        self.write(name, buffer.getvalue())

    def save_palette(self, name: str, values: Pixels, palette: Sequence[int]) -> None:
        """A PNG of indices, with the colours of a palette."""
        image, buffer = Pillow.fromarray(values), io.BytesIO()
        image.putpalette(palette)
        image.save(buffer, "PNG")
        self.write(name, buffer.getvalue())

    def save_planar(self, name: str, pixels: Pixels) -> None:
        """A PackBits TIFF that stores its colour planes one after the other, as some of Janowczyk's are."""
        buffer = io.BytesIO()
        planes = np.moveaxis(pixels, 2, 0)
        tifffile.imwrite(buffer, planes, photometric="rgb", planarconfig="separate", compression="packbits")
        self.write(name, buffer.getvalue())

    def save_mat(self, name: str, variable: str, points: Points) -> None:
        """A MATLAB 5 file of points; without points the empty byte array that the real ones hold."""
        self.save_matlab(name, {variable: points if len(points) else np.zeros((0, 2), np.uint8)})

    def save_matlab(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """A MATLAB 5 file of these arrays, undated."""
        from scipy.io import savemat  # half of what a conversion would import, only for some fakes

        buffer = io.BytesIO()
        savemat(buffer, dict(arrays))  # type: ignore[arg-type]
        undated = MAT_HEAD + buffer.getvalue()[len(MAT_HEAD) :]
        self.write(name, undated)

    def save_hdf5(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """An HDF5 file of these data sets, undated; packed where its name ends in .gz."""
        import h5py

        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            for key, values in arrays.items():
                file.create_dataset(key, data=values, track_times=False)
        packed = name.endswith(".gz")
        self.write(name, gzip.compress(buffer.getvalue(), mtime=0) if packed else buffer.getvalue())

    def save_array(self, name: str, values: NDArray[Any]) -> None:
        """A file of NumPy's."""
        buffer = io.BytesIO()
        np.save(buffer, values)
        self.write(name, buffer.getvalue())

    def save_workbook(self, name: str, rows: Sequence[Sequence[object]]) -> None:
        """An Excel workbook of one sheet, undated."""
        from openpyxl import Workbook

        book, dated = Workbook(write_only=True), io.BytesIO()
        sheet = book.create_sheet("Sheet1")
        for row in rows:
            sheet.append(row)
        book.save(dated)
        undated = io.BytesIO()
        with zipfile.ZipFile(dated) as parts, zipfile.ZipFile(undated, "w", zipfile.ZIP_DEFLATED) as archive:
            for part in parts.namelist():
                archive.writestr(zipfile.ZipInfo(part), WRITTEN.sub(b"2020-10-07T00:00:00Z", parts.read(part)))
        self.write(name, undated.getvalue())

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
        self,
        width: int,
        height: int,
        regions: Sequence[tuple[float, float, float, float]] = (),
        padding: int = 0,
        margin: tuple[int, int] | None = None,
    ) -> Pixels:
        """White glass with a piece of tissue, darker in `regions` (x, y, width, height), black in a right margin.

        margin: glass (left and right, above and below) around the tissue; an eighth of each side if not given.
        """
        pixels = np.full((height, width, 3), 243, np.uint8)
        left, top = margin or (width // 8, height // 8)
        pixels[top : height - top, left : width - left] = self.texture(width - 2 * left, height - 2 * top)
        for x, y, w, h in regions:
            pixels[int(y) : int(y + h), int(x) : int(x + w)] = self.texture(int(w), int(h), look=3)
        if padding:
            pixels[:, -padding:] = 0
        return pixels

    def texture(self, width: int, height: int, look: int = 0) -> Pixels:
        """Tissue for large areas: one drawn piece a look, shifted by chance and repeated."""
        if look not in self._textures:
            self._textures[look] = self.image(TEXTURE, TEXTURE, look)
        down, right = (int(n) for n in self.random.integers(0, TEXTURE, 2))
        rows, columns = (np.arange(height) + down) % TEXTURE, (np.arange(width) + right) % TEXTURE
        return self._textures[look][np.ix_(rows, columns)]

    def coarse(self, width: int, height: int, look: int = 0, block: int = 4) -> Pixels:
        """Tissue in blocks of a few pixels: files of large images stay small."""
        drawn = self.image(-(-width // block), -(-height // block), look)
        return drawn.repeat(block, 0).repeat(block, 1)[:height, :width]

    def spots(self, pixels: Pixels, points: Sequence[tuple[float, float]], radius: int, colour: Colour) -> None:
        """Discs at places x, y, drawn into an image or a mask."""
        for x, y in points:
            top, left = max(int(y) - radius, 0), max(int(x) - radius, 0)
            patch = pixels[top : int(y) + radius + 1, left : int(x) + radius + 1]
            rows, columns = np.mgrid[: patch.shape[0], : patch.shape[1]]
            patch[(rows + top - int(y)) ** 2 + (columns + left - int(x)) ** 2 <= radius**2] = colour

    def pack(self, folder: str) -> None:
        """Make an undated zip archive of a folder's files in place of the folder."""
        root = self.root / folder
        with zipfile.ZipFile(root.with_name(f"{root.name}.zip"), "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(path for path in root.rglob("*") if path.is_file()):
                archive.writestr(zipfile.ZipInfo(path.relative_to(root).as_posix()), path.read_bytes())
        shutil.rmtree(root)

    def pack_tar(self, folder: str) -> None:
        """Make an undated tar archive of a folder's files in place of the folder, named as the folder's own members."""
        root = self.root / folder
        with tarfile.open(root.with_name(f"{root.name}.tar"), "w") as archive:
            for path in sorted(path for path in root.rglob("*") if path.is_file()):
                archive.addfile(
                    _member(path, f"{root.name}/{path.relative_to(root).as_posix()}"), io.BytesIO(path.read_bytes())
                )
        shutil.rmtree(root)

    def spread(self, names: Iterable[str], each: int = 1) -> list[str]:
        """The first of `names` that bring `each` groups into each set that a policy by hashed names draws."""
        policy = self.manifest.policy("strict")
        share = policy.share or (1 - (policy.validation or 0), policy.validation or 0, 0)
        bounds = np.cumsum(share) / sum(share)
        found: dict[int, list[str]] = {place: [] for place, part in enumerate(share) if part}
        for name in names:
            place = int(np.searchsorted(bounds, hashed("split", self.manifest.namespace, name) / 2**64, "right"))
            if len(found[place]) < each:
                found[place].append(name)
            if all(len(names) == each for names in found.values()):
                break
        return sorted(name for names in found.values() for name in names)

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


def _member(path: Path, name: str) -> tarfile.TarInfo:
    """A file as an undated member of a tar archive."""
    member = tarfile.TarInfo(name)
    member.size = path.stat().st_size
    return member
