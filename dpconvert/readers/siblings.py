"""Files that bear an image's name and that no pattern of the manifest names: they are never ignored in silence."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import PurePosixPath

from dpconvert.annotations import programs
from dpconvert.annotations import read as annotation_files
from dpconvert.errors import ReadError, SourceError
from dpconvert.image.ome.ome_zarr import label_images
from dpconvert.image.unread import is_ome_zarr
from dpconvert.plural import counted
from dpconvert.source.files import Source
from dpconvert.source.matched import MatchedFile
from dpconvert.source.slides.slide_files import DRAWN

IMAGES = re.compile(
    r"(?i)\.(png|jpe?g|tiff?|bmp|gif|webp|jp2|j2[kc]|jp[fx]|p[bgnp]m|pam|svs|ndpi|mrxs|scn|bif|svslide|vms|vmu|dcm|czi|zarr|ozx|vsi|dat)$"
)
APART = re.compile(r"[._ -]+(?=[A-Za-z])")  # what divides an image's name from the rest of a file's
MOST_BYTES = 1 << 26  # of a file that is looked into
SHOWN = 3


def report_unused(source: Source, stems: Collection[str], bare: Collection[str], used: Collection[str]) -> None:
    """Note the files that begin with one of `stems` (names of slides without folder and ending), and are not read.

    bare: those of the stems that have no annotations although the rule needs them. used: the files that are read.

    Raises:
        SourceError: annotations of one of `bare` exist, but the manifest's pattern leaves them out.
    """
    known = sorted(stems, key=len, reverse=True)
    left = [(name, stem) for name in source.sizes if name not in used and (stem := _stem(name, known)) is not None]
    for name, stem in left:
        if stem in bare and (program := _program(source, name)) is not None:
            raise SourceError(
                f"this file beside a slide without annotations is not read: {program}",
                where=name,
                expected=f"names that match '{source.manifest.files['annotations'].pattern}'",
                remedy="export it in a format that is read, extend the pattern of [files.annotations], or move it away",
            )
    if left:
        names = ", ".join(name for name, _ in left[:SHOWN])
        more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
        source.notes.append(f"{counted(len(left), 'file')} named like slides and not read: {names}{more}")


def refuse_two_roles(source: Source, images: str, drawn: str) -> None:
    """Refuse a file that the patterns of two kinds match: as an image, and as what is drawn on another one.

    Raises:
        SourceError: there is such a file.
    """
    both = {one.name for one in source.match(images)} & {one.name for one in source.match(drawn)}
    if both:
        raise SourceError(
            f"a file that the patterns of both [files.{images}] and [files.{drawn}] match",
            where=min(both),
            found=counted(len(both), "such file"),
            remedy=f"let the pattern of [files.{images}] leave it out, as '(?<!_mask)\\.tif$' does",
        )


def refuse_dicom(source: Source, bare: Collection[MatchedFile]) -> None:
    """Refuse DICOM files of annotations about a slide that has no others.

    bare: the slides without annotations, although the rule needs them.

    Raises:
        SourceError: there is such a file.
    """
    series = {alias for slide in bare for alias in slide.aliases}
    found = next((one for one in source.slides.drawn if one.refers & series), None)
    if found is not None:
        what = f"a DICOM {DRAWN[found.modality]} ({found.modality}) of a slide without other annotations"
        raise SourceError(
            f"{what}, which is not read",
            where=found.file,
            remedy="write a mask or GeoJSON from it (with highdicom or QuPath), or move it away",
        )


def refuse_label_images(source: Source, bare: Collection[MatchedFile]) -> None:
    """Refuse label images inside an OME-Zarr that has no other annotations.

    bare: the slides without annotations, although the rule needs them.

    Raises:
        SourceError: there is such an image.
    """
    for slide in bare:
        drawn = label_images(source.root / source.lies(slide.name).file) if is_ome_zarr(slide.name) else []
        if drawn:
            raise SourceError(
                "label images of a slide without other annotations, which are not read",
                where=slide.name,
                found=f"labels/{drawn[0]}",
                remedy="save them beside the slide, as a mask in TIFF or PNG or as GeoJSON",
            )


def _stem(name: str, known: list[str]) -> str | None:
    """The longest of the stems that a file's name begins with, and that ends there."""
    file = PurePosixPath(name).name
    return next((stem for stem in known if file.startswith(stem) and APART.match(file, len(stem))), None)


def _program(source: Source, name: str) -> str | None:
    """What wrote a file of annotations, whether it is read here or not; None where it is none that is known."""
    if IMAGES.search(name) or source.sizes[name] > MOST_BYTES:
        return None
    try:
        kind = programs.detect(annotation_files.unpacked(source.read(name), name), name)
    except programs.ForeignError as error:
        return error.what.partition(",")[0]
    except ReadError:
        return None
    return None if kind == "mask" else f"annotations ({kind})"
