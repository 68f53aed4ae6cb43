"""Images in columns of nested lists of samples, as Hugging Face's `Array3D` and `tolist` of an array make them."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image as Pillow

from dpconvert.errors import ReadError

CHANNELS = 1, 3, 4
MOST = 255  # of a sample
REMEDY = "save the images as PNG, or as one array for the shape arrays"


def storage(kind: pa.DataType) -> pa.DataType:
    """Return the type that values of a column are stored as: an extension type names another."""
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def holds_pixels(kind: pa.DataType) -> bool:
    """Whether a type is of lists of lists of whole numbers, two or three deep."""
    kind, depth = storage(kind), 0
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind, depth = kind.value_type, depth + 1
    return depth in (2, 3) and pa.types.is_integer(kind)


def encoded(values: pa.Array, where: str, first: int) -> pa.Array:
    """Return the images of an array of nested lists as PNG. where: its column. first: the number of its first row.

    Raises:
        ReadError: lists of different lengths, samples beyond 0 to 255, or an unclear axis of channels.
    """
    stored = values.storage if isinstance(values, pa.ExtensionArray) else values
    found = (
        None if value is None else _png(value, f"{where}/{first + row}") for row, value in enumerate(stored.to_pylist())
    )
    return pa.array(found, pa.large_binary())


def _png(value: list[object], name: str) -> bytes:
    try:
        samples = np.array(value)
        if not np.issubdtype(samples.dtype, np.integer) or samples.ndim not in (2, 3) or not samples.size:
            raise ValueError(f"an array of {samples.ndim} axes of {samples.dtype}")
    except (ValueError, TypeError) as error:
        raise ReadError("lists that are no image", where=name, found=str(error), remedy=REMEDY) from None
    if samples.min() < 0 or samples.max() > MOST:
        span = f"{samples.min()} to {samples.max()}"
        raise ReadError("no samples of 8 bits in lists", where=name, expected=f"0 to {MOST}", found=span, remedy=REMEDY)
    pixels = _channels_last(samples.astype(np.uint8), name)
    buffer = io.BytesIO()
    Pillow.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    return buffer.getvalue()


def _channels_last(samples: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    """Return grey samples (height, width), or colours (height, width, 3 or 4)."""
    if samples.ndim == 2:
        return samples
    first, last = samples.shape[0] in CHANNELS, samples.shape[2] in CHANNELS
    if first == last:
        raise ReadError(
            "lists of which it is not clear which axis is of channels",
            where=name,
            expected="1, 3 or 4 channels, first or last",
            found=" x ".join(map(str, samples.shape)),
            remedy=REMEDY,
        )
    pixels = np.moveaxis(samples, 0, 2) if first else samples
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
