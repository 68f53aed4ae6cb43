"""OME-Zarr 0.4 and 0.5, read piece by piece by zarr (extra `zarr`): a folder is one image with its coarser levels.

Format: https://ngff.openmicroscopy.org. The folder may be one file, a zip archive `.ozx` (RFC 9). A chunk that is not
there has the fill value, as the format says. Of a folder of several images, as bioformats2raw writes it, the largest is
the slide: others are its label, an overview or scans of the same glass.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from dpconvert.errors import ReadError
from dpconvert.image.base import Pixels
from dpconvert.image.ome.ome_channels import ChannelError, is_opacity, order_of
from dpconvert.image.rgb import KindError, Range, check_bits, to_rgb
from dpconvert.image.spacing import Spacing, micrometres
from dpconvert.image.spots import spots
from dpconvert.plural import counted
from dpconvert.validation_errors import first_fault

SEVERAL = "bioformats2raw.layout"  # attribute of a folder of several images, named by numbers or by its group OME
TYPES = {"channel": "c", "time": "t"}  # type of an axis -> its letter
CHUNK_LIMIT = 1 << 28  # bytes
DAMAGED = (OSError, ValueError, KeyError, TypeError, RuntimeError, IndexError, zlib.error, BadZipFile)  # of zarr


class Axis(BaseModel):
    """An axis of the arrays."""

    name: str
    type: str = ""
    unit: str = ""

    @property
    def letter(self) -> str:
        """The axis as one of t, c, z, y and x, whatever its name; other axes keep their names."""
        return TYPES.get(self.type.lower(), self.name.lower())


class Transformation(BaseModel):
    """A transformation of coordinates; only `scale` is used."""

    type: str = ""
    scale: list[float] = []


class Dataset(BaseModel):
    """A level: the path of its array, and the size of its pixels."""

    path: str
    coordinateTransformations: list[Transformation] = []  # noqa: N815


class Multiscale(BaseModel):
    """An image in several resolutions, finest first."""

    axes: list[Axis]
    datasets: list[Dataset]
    coordinateTransformations: list[Transformation] = []  # noqa: N815  # of all levels, after their own


class Channel(BaseModel):
    """How a channel is called and displayed."""

    label: str = ""
    color: str = ""

    @property
    def rgb(self) -> int:
        """The colour as 0xRRGGBB; white if it is not stated."""
        try:
            return int(self.color.removeprefix("#")[:6], 16)
        except ValueError:
            return 0xFFFFFF


class Omero(BaseModel):
    """The channels of an image, if they are described."""

    channels: list[Channel] = []


class Multiscales(BaseModel):
    """The attributes of the group of an image."""

    multiscales: list[Multiscale]
    omero: Omero = Omero()


class ZarrLevel:
    """An array with its axes in order of the image: rows, columns, channels."""

    def __init__(self, array: Any, axes: Sequence[str], where: Path) -> None:
        self._array, self._axes = array, axes
        shape = dict(zip(axes, array.shape, strict=True))
        self.width, self.height, self.channels = shape["x"], shape["y"], shape.get("c", 1)
        self.more = {name: size - 1 for name, size in shape.items() if name not in "cyx" and size > 1}
        if array.dtype.kind not in "uif":
            raise ReadError("an array that is not of numbers", where=where, found=str(array.dtype))
        if int(np.prod(array.chunks, dtype=np.int64)) * array.dtype.itemsize > CHUNK_LIMIT:
            raise ReadError("chunks that are too large", where=where, found=" x ".join(map(str, array.chunks)))

    def samples(self, x: int, y: int, w: int, h: int) -> NDArray[Any]:
        """Return the samples (h, w, channels) of a frame; of other axes the first index."""
        spans = {"x": slice(x, x + w), "y": slice(y, y + h), "c": slice(None)}
        found = np.asarray(self._array[tuple(spans.get(name, 0) for name in self._axes)])
        kept = [name for name in self._axes if name in spans]
        found = found if "c" in kept else found[..., None]
        order = [[*kept, *([] if "c" in kept else ["c"])].index(name) for name in "yxc"]
        return np.ascontiguousarray(found.transpose(order))


class ZarrPages:
    """The image of an OME-Zarr folder.

    Raises:
        ReadError: the folder is damaged, no image, or not of one or three channels.
    """

    in_strips = False

    def __init__(self, path: Path, scale: Range | None = None) -> None:
        self.path, self.scale = path, scale
        try:
            image, notes = _group(path)
            self._store = image.store
            described = _described(dict(image.attrs), path)
            found = described.multiscales[0]
            self.levels, finest = _levels(image, found, path)
            self.spacing = _spacing(found, finest)
            drawn = label_images(path)
        except DAMAGED as error:
            raise ReadError(f"not a readable OME-Zarr: {error}", where=path, remedy="fetch it again") from None
        first = self.levels[0]
        self._order = _order(first.channels, described.omero.channels, path)
        self.width, self.height = first.width, first.height
        more = [f"{counted(count, 'more place')} on the axis {name} not read" for name, count in first.more.items()]
        if others := len(described.multiscales) - 1:
            more.append(f"{counted(others, 'more image')} under `multiscales` not read")
        if drawn:
            more.append(f"{counted(len(drawn), 'label image')} not read: {', '.join(drawn[:3])}")
        self.notes = (*notes, *more)
        self._check_bits()

    def region(self, level: int, x: int, y: int, w: int, h: int) -> Pixels:
        """Return a frame of a level, in pixels of that level: uint8 RGB (h, w, 3).

        Raises:
            ReadError: the folder is damaged in this frame.
        """
        try:
            samples = self.levels[level].samples(x, y, w, h)[:, :, self._order]
            return to_rgb(samples, opacity="unassociated" if samples.shape[2] == 4 else "", scale=self.scale)
        except KindError as error:
            raise ReadError(str(error), where=self.path, remedy=error.remedy) from None
        except DAMAGED as error:
            raise ReadError(f"cannot be read at {(x, y, w, h)}: {error}", where=self.path) from None

    def close(self) -> None:
        """Release the file, if it is one."""
        self._store.close()

    def _check_bits(self) -> None:
        last = self.levels[-1]
        try:
            looked_at = [last.samples(*frame).reshape(-1) for frame in spots(last.width, last.height)]
            check_bits(np.concatenate(looked_at), scale=self.scale)
        except KindError as error:
            raise ReadError(str(error), where=self.path, remedy=error.remedy) from None
        except DAMAGED as error:
            raise ReadError(f"not a readable OME-Zarr: {error}", where=self.path) from None


def _group(path: Path) -> tuple[Any, list[str]]:
    """Return the group of the image, or of the largest of several as bioformats2raw makes them, and notes."""
    import zarr

    root = zarr.open_group(zarr.storage.ZipStore(path, mode="r") if path.is_file() else str(path), mode="r")
    attributes = _attributes(dict(root.attrs))
    if "plate" in attributes:
        raise ReadError("a plate of many images", where=path, remedy="name the folder of one image of it")
    if SEVERAL not in attributes:
        return root, []
    images = [root[name] for name in _series(root)]
    if not images:
        raise ReadError("a folder of several images without any", where=path, remedy="fetch it again")
    areas = [_area(image, path) for image in images]
    others = f"{counted(len(images) - 1, 'more image')} in the folder not read"
    return images[areas.index(max(areas))], [others] if len(images) > 1 else []


def _series(root: Any) -> list[str]:
    """Return the names of the images in a folder of several: those that its group OME lists, else the numbers."""
    listed = _attributes(dict(root["OME"].attrs)).get("series") if "OME" in root else None
    if isinstance(listed, list) and listed:
        return [str(name) for name in listed]
    return sorted((name for name in root.group_keys() if name.isdecimal()), key=int)


def _area(image: Any, path: Path) -> int:
    """Return the number of pixels of an image; 0 for a group that is none."""
    try:
        found = _described(dict(image.attrs), path).multiscales[0]
        finest = _levels(image, found, path)[0][0]
    except (ReadError, *DAMAGED):
        return 0
    return int(finest.width * finest.height)


def _levels(image: Any, found: Multiscale, path: Path) -> tuple[list[ZarrLevel], Dataset]:
    """Return the levels, finest first whatever their order in the file, and the entry of the finest."""
    axes = [axis.letter for axis in found.axes]
    levels = [(ZarrLevel(image[dataset.path], axes, path), dataset) for dataset in found.datasets]
    levels.sort(key=lambda one: -one[0].width * one[0].height)
    return [level for level, _ in levels], levels[0][1]


def label_images(path: Path) -> list[str]:
    """Return the names of the label images that the image in a folder holds."""
    try:
        image, _ = _group(path)
        listed = _attributes(dict(image["labels"].attrs)).get("labels") if "labels" in image else None
    except (ReadError, *DAMAGED):
        return []
    return list(map(str, listed)) if isinstance(listed, list) else []


def _attributes(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the attributes of OME, which version 0.5 has under `ome`."""
    ome = attributes.get("ome", attributes)
    return ome if isinstance(ome, Mapping) else {}


def _described(attributes: Mapping[str, Any], path: Path) -> Multiscales:
    fields = _attributes(attributes)
    if "image-label" in fields:
        raise ReadError("a label image, not a slide", where=path, remedy="name the folder of the image it belongs to")
    try:
        found = Multiscales.model_validate(fields)
    except ValidationError as error:
        raise ReadError(f"no image by OME-Zarr: {first_fault(error, Multiscales)}", where=path) from None
    first = found.multiscales[0] if found.multiscales else None
    if first is None or not first.datasets or not {"x", "y"} <= {axis.letter for axis in first.axes}:
        raise ReadError("no image by OME-Zarr", where=path, expected="`multiscales` with arrays and axes x and y")
    return found


def _order(count: int, channels: Sequence[Channel], path: Path) -> list[int]:
    """Return the places of the channels of a grey or RGB image, and that of its opacity, in this order.

    Raises:
        ReadError: the channels are not those of such an image.
    """
    names = [channel.label for channel in channels] if len(channels) == count else [""] * count
    colours = [channel.rgb for channel in channels] if len(channels) == count else [0xFFFFFF] * count
    if count == 1:
        return [0]
    try:
        if count == 3 or (count == 4 and is_opacity(names[3])):
            return [*order_of(names[:3], colours[:3]), *range(3, count)]
    except ChannelError:
        pass
    listed = f": {', '.join(names)}" if any(names) else ""
    raise ReadError(
        "an image of several channels (fluorescence), not RGB",
        where=path,
        found=f"{count} channels{listed}",
        expected="one channel, or red, green and blue",
        remedy="export it as RGB",
    )


def _spacing(found: Multiscale, finest: Dataset) -> Spacing:
    """Return the micrometres per pixel of the finest level."""
    steps = [*finest.coordinateTransformations, *found.coordinateTransformations]
    scales = [step.scale for step in steps if step.type == "scale"]
    if not scales or any(len(scale) != len(found.axes) for scale in scales):
        return Spacing()
    whole = np.prod(scales, axis=0).tolist()
    of_axis = {axis.letter: (axis.unit, scale) for axis, scale in zip(found.axes, whole, strict=True)}
    units = [micrometres(of_axis[name][0]) if of_axis[name][0] else None for name in "xy"]
    stated = " x ".join(dict.fromkeys(f"{of_axis[name][1]:g} {of_axis[name][0] or 'of no unit'}" for name in "xy"))
    if None in units:
        return Spacing(stated=stated)
    sides = [of_axis[name][1] * unit for name, unit in zip("xy", units, strict=True) if unit is not None]
    return Spacing.of(sides[0], sides[1], stated)
