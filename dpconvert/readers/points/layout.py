"""`[layout]` of a manifest of the shape "points"."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from dpconvert.annotations.parsing.lines import checked_encoding
from dpconvert.annotations.parsing.units import Unit
from dpconvert.annotations.point_boxes import BoxForm, with_boxes
from dpconvert.annotations.points import Form
from dpconvert.readers.layout_keys import Missing, SetLists
from dpconvert.readers.pairing import stem
from dpconvert.readers.stated_images import StatedImage
from dpconvert.source.matched import MatchedFile
from dpconvert.source.record import SourceImage


class Layout(SetLists):
    """`[layout]` of a manifest of this shape."""

    columns: list[str] = []
    """What the columns of a file without a header hold, such as `["x", "y", "label"]`; `image` names the image."""
    names: dict[Literal["x", "y", "label", "image"], str] = {}
    """What the header or JSON calls them, such as `{x = "Centroid X", y = "Centroid Y"}`; `image = "*"` where the keys
    of a JSON object are the images.
    """
    delimiter: str | None = None
    """Character between columns, `""` for blanks; found in the file if not given."""
    skip: int = 0
    """Number of header lines to skip."""
    decimal: Literal["", ".", ","] = ""
    """Decimal separator; commas are decimal if not given and unambiguous."""
    encoding: str = ""
    """Encoding of the text, such as cp1252; UTF-8 or what its byte-order mark says if not given."""
    sheet: str = ""
    """Sheet of an Excel workbook; the only one that holds rows if not given."""
    check_head: bool = True
    """Whether a header that contradicts `columns` is an error."""
    variable: str = ""
    """Array of points in a MATLAB file, perhaps in a structure (`cells.points`), or the list in a JSON object."""
    label_variable: str = ""
    """Array of their labels in a MATLAB file: numbers, or texts in a cell or char array."""
    label: str = ""
    """Label of all points if no column holds it."""
    labels: dict[str, str] = {}
    """Label in the files -> label."""
    boxes: BoxForm = ""
    """Boxes of COCO: `"xywh"` (x, y, width, height, as COCO states) or `"xyxy"` (two corners); refused if they fit only
    the other and this is not given. In tables and JSON lists, what x and y are beside a width and a height: `"xywh"`
    (the upper left corner), `"cxcywh"` (the centre) or `"none"` (there are no boxes); refused if not given.
    """
    unit: Unit = ""
    """Unit of coordinates in tables, JSON lists, MATLAB files and GeoJSON: `"px"`, or `"um"`, `"mm"` or `"nm"`, which
    the resolution of the image converts to pixels. If not given they are pixels, and a file that says otherwise, as the
    column `Centroid X µm` of QuPath does, is refused.
    """
    bounds: bool | None = None
    """Whether coordinates start at the bounds of a slide that has them (MIRAX), as QuPath's do; `false` if at the
    corner of the whole slide. If not given, GeoJSON starts at the bounds, and tables on such a slide are refused.
    """
    label_field: str = ""
    """Attribute of VIA that holds the labels; files with labels in several are refused if not given."""
    stated_image: StatedImage = ""
    """`"ignore"`: a file of LabelMe, Pascal VOC or Darwin is about the image with its name, although it states the
    name of another image that is here; refused if not given.
    """
    missing: Missing = "error"
    """Images without points: `"error"` (or `false`) refuses them, `"skip"` (or `true`) leaves them out and counts
    them, `"none"` says that they show none.
    """

    _known = field_validator("encoding")(checked_encoding)

    @field_validator("columns")
    @classmethod
    def _places(cls, columns: list[str]) -> list[str]:
        if columns and not {"x", "y"} <= {*with_boxes(columns, "none", "")}:
            raise ValueError("x and y must be among the columns, or xmin, ymin, xmax and ymax")
        return columns

    def form(self) -> Form:
        """The form of the points in a file."""
        return Form(
            columns=self.columns,
            names={str(ours): theirs for ours, theirs in self.names.items()},
            delimiter=self.delimiter,
            skip=self.skip,
            label=self.label,
            decimal=self.decimal,
            check_head=self.check_head,
            encoding=self.encoding,
            sheet=self.sheet,
            boxes=self.boxes,
            unit=self.unit,
        )


def source_image_of(
    image: MatchedFile, files: tuple[str, ...], layout: Layout, extra: dict[str, str] | None = None
) -> SourceImage:
    """Return an image with the files that its points are in."""
    return SourceImage(
        stem(image.name),
        (image.name,),
        image.get("group") or image.get("name") or image.name,
        split=layout.set_of(image.get("split"), image.name),
        annotations=files,
        extra=extra or {},
    )
