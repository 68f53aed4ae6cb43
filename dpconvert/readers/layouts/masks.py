"""Shape "masks": pictures, and for each a mask whose values are classes.

[files.images] and [files.masks] are paired by their named group `name`. [layout] takes
  values     value -> class name, e.g. {0 = "background", 255 = "tumour"}
  threshold  makes every value 0 or 1 first (for masks with grey fringes)
  missing    true: images without a mask are left out and counted
"""

from __future__ import annotations

from collections.abc import Iterator

from dpconvert.annotations import LabelMask, masks
from dpconvert.card import Model
from dpconvert.errors import ManifestError
from dpconvert.image import Image
from dpconvert.manifest.model import FileKind
from dpconvert.readers.pairing import Missing, as_split, layout_of, paired
from dpconvert.source.files import Source
from dpconvert.source.record import Picture

FILES = {
    "images": FileKind(
        pattern=r"(?i)(^|/)images/(?P<name>[^/]+)\.(png|jpe?g|tiff?|bmp)$", what="pictures", example="images/0001.png"
    ),
    "masks": FileKind(
        pattern=r"(?i)(^|/)masks/(?P<name>[^/]+?)(_mask)?\.(png|tiff?|bmp)$", what="masks", example="masks/0001.png"
    ),
}


class Layout(Model):
    """`[layout]` of a manifest of this shape."""

    values: dict[int, str]
    threshold: int | None = None
    missing: Missing = "error"


def pictures(source: Source) -> Iterator[Picture]:
    source.need("images")
    missing = layout_of(source.manifest, Layout).missing
    if missing == "none":
        raise ManifestError(
            'layout.missing: "none" is not for masks', where=source.manifest.path,
            remedy="draw an empty mask, or say true to leave out images without one",
        )  # fmt: skip
    for image, mask in paired(source, "images", "masks", missing=missing):
        assert mask is not None
        group = image.get("group") or image["name"]
        split = as_split(image.get("split"))
        yield Picture(image["name"], (image.name,), group, split=split, annotations=(mask.name,))


def read_annotations(source: Source, picture: Picture, image: Image) -> LabelMask:
    layout = layout_of(source.manifest, Layout)
    name = picture.annotations[0]
    return masks.read(source.read(name), name, layout.values, (image.width, image.height), threshold=layout.threshold)
