"""A row of the plan and the source files in, the bytes of one sample out: image, class and JSON."""

from __future__ import annotations

import io
import json
import warnings
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from dpconvert.errors import ReadError
from dpconvert.manifest import ImageFormat, Manifest
from dpconvert.plan import Row
from dpconvert.slide import Image, open_image
from dpconvert.source import Source

PASSED = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpg"}
PASSED_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I"}
PNG_LEVEL = 6


@dataclass(frozen=True, slots=True)
class Sample:
    """What is written for one row: `image` in `format` ("png" or "jpg"), and the JSON's values."""

    key: str
    image: bytes
    format: str
    label: int
    metadata: dict[str, Any]

    def members(self) -> list[tuple[str, bytes]]:
        """(name, bytes) in the order of the tar."""
        text = json.dumps(self.metadata, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return [
            (f"{self.key}.{self.format}", self.image),
            (f"{self.key}.cls", str(self.label).encode()),
            (f"{self.key}.json", text.encode()),
        ]


class Encoder:
    """Encodes rows of one source; keeps the last picture open, since rows of a picture follow each other."""

    def __init__(self, manifest: Manifest, source: Source, classes: list[str], image: ImageFormat) -> None:
        self.manifest, self.source, self.classes, self.image = manifest, source, classes, image
        self._open: tuple[tuple[str, ...], Image] | None = None

    def __enter__(self) -> Encoder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._close()

    def sample(self, row: Row) -> Sample:
        """The sample of one row.

        Raises:
            ReadError: a file of the source is missing, damaged, or smaller than planned.
        """
        whole = self._whole_file(row)
        if whole is not None:
            data, kind, (width, height) = whole
            return Sample(row.key, data, kind, row.label, self._metadata(row, (0, 0, width, height), (width, height)))
        picture = self._picture(row)
        box = row.box or (0, 0, picture.width, picture.height)
        if box[0] + box[2] > picture.width or box[1] + box[3] > picture.height:
            raise ReadError(
                "smaller than when it was planned", where=row.files[0], found=f"{picture.width} x {picture.height}"
            )
        stored = row.stored or (box[2], box[3])
        coarser = picture.downsample(box[2], box[3], stored)
        passed = picture.stored_jpeg(*box, out=stored) if self.image.format == "jpeg" else None
        kind, data = ("jpg", passed) if passed else encode(picture.read(*box, out=stored), self.image)
        return Sample(row.key, data, kind, row.label, self._metadata(row, box, stored, picture.mpp, coarser))

    def _whole_file(self, row: Row) -> tuple[bytes, str, tuple[int, int]] | None:
        """The source's own bytes when the sample is a whole PNG or JPEG file, seen to decode to the end."""
        if row.box is not None or row.stored is not None or len(row.files) != 1:
            return None
        data = self.source.read(row.files[0])
        kind = next((kind for magic, kind in PASSED.items() if data.startswith(magic)), None)
        if kind is None:
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a corrupt EXIF part, say
                with Pillow.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
                    picture.load()
                    return (data, kind, picture.size) if picture.mode in PASSED_MODES else None
        except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
            raise ReadError(f"damaged picture: {error}", where=row.files[0], remedy="fetch it again") from None

    def _picture(self, row: Row) -> Image:
        if self._open is None or self._open[0] != row.files:
            self._close()
            self._open = row.files, open_image([self.source.file(name) for name in row.files], row.columns)
        return self._open[1]

    def _close(self) -> None:
        if self._open is not None:
            with suppress(OSError):
                self._open[1].close()
            self._open = None

    def _metadata(
        self,
        row: Row,
        box: tuple[int, ...],
        stored: tuple[int, int],
        mpp: float | None = None,
        coarser: float = 1.0,
    ) -> dict[str, Any]:
        manifest, finest = self.manifest, mpp or float(row.attributes.get("mpp", 0)) or self.manifest.mpp
        return {
            "task": manifest.task,
            "label": row.label,
            "label_name": self.classes[row.label],
            "group": row.group,
            "group_kind": manifest.group.kind,
            "split": row.split,
            "source": manifest.name,
            "files": list(row.files),
            "picture": row.picture,
            **dict(zip(("x", "y", "width", "height"), box, strict=True)),
            "stored_width": stored[0],
            "stored_height": stored[1],
            "mpp_requested": getattr(manifest.rule, "mpp", None),
            "mpp_read": None if finest is None else finest * coarser,
            "mpp_stored": None if finest is None else finest * box[2] / stored[0],
            "stain": manifest.stain,
            "organ": manifest.organ,
            "attributes": dict(row.attributes),
        }


def encode(pixels: NDArray[np.uint8], image: ImageFormat) -> tuple[str, bytes]:
    """(extension, bytes) of an RGB array (height, width, 3): PNG, or JPEG without chroma subsampling (4:4:4)."""
    if image.format == "jpeg":  # the bytes that Pillow gives, sooner
        data = imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels), level=image.quality, subsampling="444")
        return "jpg", bytes(data)
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "PNG", compress_level=PNG_LEVEL)
    return "png", buffer.getvalue()
