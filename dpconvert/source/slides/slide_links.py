"""Open slides whose files are mixed with others or scattered, by temporary folders of links to them."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from pathlib import Path

from dpconvert.errors import ReadError
from dpconvert.image import Image, open_image
from dpconvert.image import Slide as Pyramid
from dpconvert.source.slides.slide_files import MultiFileSlide, SlideFiles


def linked(root: Path, slides: SlideFiles) -> Path | None:
    """Make a temporary folder of links that brings together the files of each slide whose files are mixed or scattered.

    Return None if no slide needs one. The caller removes the folder.
    """
    staged = [slide for slide in slides.slides.values() if slide.staged]
    if not staged:
        return None
    folder = Path(tempfile.mkdtemp(prefix="dpconvert-"))
    for slide in staged:
        for file, link in _links(folder, slide).items():
            link.parent.mkdir(exist_ok=True)
            link.symlink_to((root / file).absolute())
    return folder


def open_slide(root: Path, slide: MultiFileSlide, folder: Path | None) -> Image:
    """Open a slide by its links in the `folder` from `linked`; if that is absent (another machine), by new links.

    Raises:
        ReadError: the slide cannot be read.
    """
    own = None
    if folder is None or not folder.is_dir():
        folder = own = linked(root, SlideFiles({slide.main: slide}))
    assert folder is not None
    try:
        image = open_image([_links(folder, slide)[slide.main]])
    except ReadError as error:
        raise ReadError(error.what, where=root / slide.main, found=error.found, remedy=error.remedy) from None
    if own is not None:
        weakref.finalize(image, shutil.rmtree, own, ignore_errors=True)
    if isinstance(image, Pyramid):
        image.path = root / slide.main  # the name for messages
    return image


def _links(folder: Path, slide: MultiFileSlide) -> dict[str, Path]:
    own = folder / hashlib.sha256(slide.main.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return {file: own / f"{number:06d}.dcm" for number, file in enumerate(slide.files)}
