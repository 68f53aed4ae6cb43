"""The OME-XML of a TIFF: the images that have planes in the file itself."""

from __future__ import annotations

import html
import io
import re
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tifffile
from defusedxml import ElementTree
from PIL.TiffImagePlugin import IMAGEDESCRIPTION, ImageFileDirectory_v2

from dpconvert.image.guards.libtiff import DAMAGED, UNREADABLE, open_tiff

Opened = Path | io.BytesIO
LONGEST_COMPANION = 1 << 24  # maximum bytes of an OME-XML file next to its TIFFs
OME_END = "OME>"  # of a description, by which tifffile knows an OME-TIFF
BIG = 43  # the version of a BigTIFF, whose header is 16 bytes long
XML_ENTITIES = {"amp", "lt", "gt", "quot", "apos"}


@dataclass(frozen=True)
class OmeImages:
    """The OME-XML of the images with a plane in this file, each named by its index in `pixels` (`Pixels` elements).

    names: those that the file itself gives them, '' if none.
    """

    text: str
    pixels: list[Any]
    names: list[str]


def has_ome_xml(path: Path) -> bool:
    """Whether a TIFF is an OME-TIFF, whatever its name; only its first directory is read (some 50 microseconds)."""
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of directories that are cut, which their readers report
            head = file.read(8)
            head += file.read(8) if BIG in head[2:4] else b""
            directory = ImageFileDirectory_v2(head)
            file.seek(directory.next)
            directory.load(file)
            return str(directory.get(IMAGEDESCRIPTION, ""))[-len(OME_END) - 16 :].rstrip("\0 \r\n\t").endswith(OME_END)
    except UNREADABLE:
        return False


def ome_images(tiff: tifffile.TiffFile, file: Opened) -> OmeImages | None:
    """Return the OME-XML of a file; None if it is not an OME-TIFF or its XML cannot be parsed."""
    if not tiff.is_ome or len(text := tiff.ome_metadata or "") > LONGEST_COMPANION:
        return None
    root = _parsed(text)
    own = root.get("UUID") if root is not None else None
    if root is not None and (beside := _companion(root, file)):
        root = _parsed(beside)
    if root is None:
        return None
    images = [element for element in root if _kind(element) == "Image" and _pixels(element) is not None]
    kept = [image for image in images if _is_of(image, own, tiff.filename)]
    for image in images:
        if kept and image not in kept:
            root.remove(image)
        elif not kept:  # the file was renamed and has no UUID
            _forget_files(image)
    kept = kept or images
    names = [image.get("Name", "") for image in kept]
    for place, image in enumerate(kept):
        image.set("Name", str(place))
    if own:
        root.set("UUID", own)
    return OmeImages(ElementTree.tostring(root, encoding="unicode"), [_pixels(image) for image in kept], names)


def _parsed(text: str) -> Any | None:
    known = re.sub(r"&(\w+);", lambda it: it[0] if it[1] in XML_ENTITIES else html.unescape(it[0]), text)
    try:
        return ElementTree.fromstring(known, forbid_dtd=True)
    except ElementTree.ParseError:
        return None


def _companion(root: Any, file: Opened) -> str:
    """Return the text of the metadata file next to this one (element `BinaryOnly`); '' if there is none."""
    named = next((element.get("MetadataFile") for element in root if _kind(element) == "BinaryOnly"), None)
    if not named or Path(named).name != named or not isinstance(file, Path):
        return ""
    beside = file.with_name(named)
    if not beside.is_file() or beside.stat().st_size > LONGEST_COMPANION:
        return ""
    with suppress(*DAMAGED):
        if named.lower().endswith((".tif", ".tiff")):
            with open_tiff(beside) as tiff:
                return tiff.ome_metadata or ""
        return beside.read_text("utf-8-sig")
    return ""


def _kind(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]


def _pixels(image: Any) -> Any | None:
    return next((element for element in image if _kind(element) == "Pixels"), None)


def _is_of(image: Any, own: str | None, name: str) -> bool:
    """Whether the file with this UUID or name contains a plane of an image; planes without a file lie in every file."""
    files = [element for element in image.iter() if _kind(element) == "UUID"]
    named = [
        (element.text or "").strip() == own or element.get("FileName", "").lower() == name.lower() for element in files
    ]
    return not named or any(named)


def _forget_files(image: Any) -> None:
    for data in list(image.iter()):
        for element in [child for child in data if _kind(child) == "UUID"]:
            other = element.get("FileName", "")
            if Path(other).name != other:
                raise ValueError(f"OME-XML that names a file elsewhere, {other[:80]!r}")
            data.remove(element)
