"""Files that state the name of an image, such as LabelMe's `imagePath`, while their own names are those of another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from dpconvert.annotations import read as annotation_files
from dpconvert.annotations.listed import bare, matching
from dpconvert.errors import ReadError, SourceError
from dpconvert.names import folded
from dpconvert.readers import named_images
from dpconvert.source.files import Source

StatedImage = Literal["", "ignore"]
"""What becomes of a file that states the name of another image that is here: '' refuses it."""


def refuse_another(source: Source, pairs: Mapping[str, str], images: list[str], stated: StatedImage) -> None:
    """Refuse a file of annotations that is paired with one image by its own name, and states the name of another here.

    The name of an image that does not exist here is not a fault: images get renamed.

    pairs: file of annotations -> the image that it is paired with. images: all images.

    Raises:
        SourceError: there is such a file.
    """
    if stated == "ignore":
        return
    here = {folded(bare(image)): image for image in images}
    for file, image in pairs.items():
        name = _stated(source, file)
        other = here.get(folded(bare(name.replace("\\", "/")))) if name and not matching([name], image) else None
        if other is not None:
            raise SourceError(
                "states the name of another image that is here",
                where=file,
                expected=image,
                found=other,
                remedy="name the file like the image that it is about; if only the name that it states is wrong, say "
                '`stated_image = "ignore"` in [layout]',
            )


def _stated(source: Source, file: str) -> str:
    """The image that a file states; '' where it cannot be read, which its reader reports."""
    if not named_images.SEVERAL.search(file):
        return ""
    try:
        return annotation_files.image_stated(named_images.content(source, file), file)
    except ReadError:
        return ""
