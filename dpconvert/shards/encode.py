"""Encode samples: make the bytes of image, class and JSON from a row of the plan and the source files."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from dpconvert.card import Label
from dpconvert.errors import ReadError
from dpconvert.image import is_slide
from dpconvert.image.decode import JPEG_START, PNG_START, decode, is_plain
from dpconvert.image.guards.pixel_claims import TooLargeError
from dpconvert.image.rgb import KindError
from dpconvert.manifest.dense import Dense
from dpconvert.manifest.model import ImageFormat, Manifest
from dpconvert.plan.collect import LazyScene
from dpconvert.plan.plan_rows import PlanRow
from dpconvert.plan.targets import ImageTargets
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage

COPIED = {PNG_START: "png", JPEG_START: "jpg"}
PNG_LEVEL = 6
SEG = ".seg.png"


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """One sample: `image` in `format` ("png" or "jpg"), and `metadata`, the content of its JSON.

    label: one class is a separate file; several classes or a number are only in the JSON. seg: the mask as a PNG file,
    if the task keeps masks.
    """

    key: str
    image: bytes
    format: str
    label: Label
    metadata: Mapping[str, Any]
    seg: bytes | None = None

    def members(self) -> list[tuple[str, bytes]]:
        """Return (name, bytes) in the order of the tar."""
        return [
            (f"{self.key}.{self.format}", self.image),
            *([(f"{self.key}.cls", b"%d" % self.label)] if isinstance(self.label, int) else []),
            *([(f"{self.key}{SEG}", self.seg)] if self.seg is not None else []),
            (f"{self.key}.json", as_json(self.metadata).encode()),
        ]


as_json = json.JSONEncoder(sort_keys=True, ensure_ascii=True, separators=(",", ":")).encode


class Encoder:
    """Encodes the rows of one source."""

    def __init__(self, manifest: Manifest, source: Source, classes: list[str], image: ImageFormat) -> None:
        self.manifest, self.source, self.classes, self.image = manifest, source, classes, image
        self._targets: tuple[str, ImageTargets] | None = None  # for the last image: its samples are consecutive

    def sample(self, row: PlanRow) -> EncodedSample:
        """Encode the sample of one row, with the dense targets that the manifest requests.

        Raises:
            ReadError: a file of the source is missing or damaged, or an image is smaller than planned.
        """
        sample = self._labelled(row)
        return sample if self.manifest.dense is None else self._with_targets(self.manifest.dense, row, sample)

    def _with_targets(self, dense: Dense, row: PlanRow, sample: EncodedSample) -> EncodedSample:
        targets, data = self._targets_of(dense, row), sample.metadata
        frame = data["x"], data["y"], data["width"], data["height"]
        stored = data["stored_width"], data["stored_height"]
        return replace(
            sample,
            metadata={**data, **targets.objects(frame, stored)},
            seg=None if dense.seg is None else encode_mask(targets.mask(frame, stored)),
        )

    def _targets_of(self, dense: Dense, row: PlanRow) -> ImageTargets:
        if self._targets is None or self._targets[0] != row.source_image:
            assert row.annotations is not None
            source_image = SourceImage(
                row.source_image,
                row.files,
                row.group,
                columns=row.columns,
                annotations=row.annotations.files,
                extra=row.annotations.extra,
                attributes=row.attributes,
            )
            image = self.source.open_image(row.files, row.columns)
            annotations = LazyScene(self.source, source_image, image, Counter()).annotations
            self._targets = row.source_image, ImageTargets(dense, annotations, exhaustive=row.annotations.exhaustive)
        return self._targets[1]

    def _labelled(self, row: PlanRow) -> EncodedSample:
        whole = self._whole_file(row)
        if whole is not None:
            data, kind, (width, height) = whole
            metadata = self._metadata(row, (width, height), (width, height))
            return EncodedSample(row.key, data, kind, row.label, metadata | {"x": 0, "y": 0})
        image = self.source.open_image(row.files, row.columns)
        x, y, w, h = box = row.box or (0, 0, image.width, image.height)
        if x + w > image.width or y + h > image.height:
            raise ReadError(
                "image is smaller than when it was planned",
                where=row.files[0],
                expected=f"{x + w} x {y + h} or more",
                found=f"{image.width} x {image.height}",
                remedy="restore the file, or convert again with --overwrite",
            )
        stored = row.stored or (w, h)
        copied = image.stored_jpeg(*box, out=stored) if self.image.format == "jpeg" else None
        kind, data = ("jpg", copied) if copied else encode(image.read(*box, out=stored), self.image)
        metadata = self._metadata(row, (w, h), stored, image.mpp, image.downsample(w, h, stored))
        return EncodedSample(row.key, data, kind, row.label, metadata | {"x": x, "y": y})

    def _whole_file(self, row: PlanRow) -> tuple[bytes, str, tuple[int, int]] | None:
        """Return bytes, format and size of a sample that is a whole PNG or JPEG file that all decoders read alike."""
        if row.box is not None or row.stored is not None or len(row.files) != 1:
            return None
        if self.source.is_array(row.files[0]) or is_slide(row.files[0]):
            return None
        data = self.source.read(row.files[0])
        kind = next((kind for magic, kind in COPIED.items() if data.startswith(magic)), None)
        if kind is None:
            return None
        try:
            height, width = decode(data, self.manifest.pixels.range, source=True).shape[:2]
        except KindError as error:
            raise ReadError(str(error), where=row.files[0], remedy=error.remedy) from None
        except TooLargeError as error:
            raise ReadError(str(error), where=row.files[0], remedy="split it, or save it as a tiled TIFF") from None
        except ValueError as error:
            raise ReadError(f"damaged image: {error}", where=row.files[0], remedy="download it again") from None
        return (data, kind, (width, height)) if is_plain(data) else None

    def _target(self, label: Label) -> dict[str, Any]:
        if isinstance(label, int):
            return {"label": label, "label_name": self.classes[label]}
        if isinstance(label, float):
            return {"value": label}
        return {"labels": label, "label_names": [self.classes[one] for one in label]}

    def _metadata(
        self,
        row: PlanRow,
        size: tuple[int, int],
        stored: tuple[int, int],
        mpp: float | None = None,
        factor: float = 1.0,
    ) -> dict[str, Any]:
        """Return the content of the JSON, without the position."""
        manifest = self.manifest
        finest = manifest.mpp_override or mpp or float(row.attributes.get("mpp", 0)) or manifest.mpp
        return {
            "task": manifest.task,
            **self._target(row.label),
            "group": row.group,
            "group_kind": manifest.group.kind,
            "split": row.split,
            "source": manifest.name,
            "files": list(row.files),
            "picture": row.source_image,
            "width": size[0],
            "height": size[1],
            "stored_width": stored[0],
            "stored_height": stored[1],
            "mpp_requested": getattr(manifest.rule, "mpp", None),
            "mpp_read": None if finest is None else finest * factor,
            "mpp_stored": None if finest is None else finest * size[0] / stored[0],
            "stain": manifest.stain,
            "organ": manifest.organ,
            "attributes": dict(row.attributes),
        }


def encode(pixels: NDArray[np.uint8], image: ImageFormat) -> tuple[str, bytes]:
    """Return (extension, bytes) of an RGB array (height, width, 3): PNG, or JPEG without chroma subsampling (4:4:4)."""
    if image.format == "jpeg":  # the same bytes as Pillow's, but faster
        data = imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels), level=image.quality, subsampling="444")
        return "jpg", bytes(data)  # not a copy: data is bytes already
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "PNG", compress_level=PNG_LEVEL)
    return "png", buffer.getvalue()


def encode_mask(mask: NDArray[np.uint8]) -> bytes:
    """Return a mask (height, width) as an 8-bit grey PNG file (mode L)."""
    buffer = io.BytesIO()
    Pillow.fromarray(mask).save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()
