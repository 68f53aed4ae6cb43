"""The rules of a manifest: how samples are cut out of images and labelled (`[rule]`)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dpconvert.card import Model

SANE_MPP = 0.05, 10.0  # micrometres per pixel; values outside are errors
Mpp = Annotated[float, Field(ge=SANE_MPP[0], le=SANE_MPP[1])]
TissueRule = Literal["glass", "saturation"]


class Whole(Model):
    """Every image is one sample."""

    type: Literal["whole"] = "whole"
    """Rule name."""


class PatchGrid(Model):
    """A square patch of `size` pixels every `size - overlap`, no partial patch at the border.

    The origin is (0, 0), or the corner of the slide's bounds if the file states them. Pixels are those of level 0, or
    with `mpp` (micrometres per pixel) those of that resolution: a slide of 0.25 um/px is then read in frames twice as
    large as one of 0.5 um/px. The slide's own tiles are taken from the level nearest to `size` and `stored`.
    """

    size: Annotated[int, Field(gt=0)]
    """Side of a patch in pixels: of level 0, or of the resolution `mpp`."""
    overlap: Annotated[int, Field(ge=0)] = 0
    """Overlap of neighbouring patches in the same pixels."""
    mpp: Mpp | None = None
    """Micrometres per pixel at which patches are taken; level 0 if not given."""
    stored: Annotated[int, Field(gt=0)] | None = None
    """Side of the stored patch in pixels after resampling; as read if not given."""
    own_tiles: bool = False
    """Whether patches are the slide's own JPEG tiles, stored without decoding."""

    @model_validator(mode="after")
    def _advances(self) -> Self:
        if self.overlap >= self.size:
            raise ValueError("overlap must be smaller than size")
        return self


class Tiles(PatchGrid):
    """The patches of the grid, each with the label of its image."""

    type: Literal["tiles"]
    """Rule name."""


class Presence(PatchGrid):
    """Class 1 when a point with one of the labels `positive` lies strictly inside the patch, else class 0."""

    type: Literal["presence"]
    """Rule name."""
    positive: list[str]
    """Labels of the points that make a patch positive."""


class Objects(PatchGrid):
    """Sparse objects: patches of the grid without a `positive` point, and `crops` shifted patches around each of them.

    A grid patch that holds a point labelled `other` belongs to that class, one that holds nothing to `none`.
    """

    type: Literal["objects"]
    """Rule name."""
    positive: str
    """Label of the objects to find."""
    none: str
    """Class of a patch without any object."""
    other: str | None = None
    """Class of a patch that holds an object of another label."""
    crops: Annotated[int, Field(gt=0)] = 10
    """Number of shifted patches around each positive object."""


class Regional(PatchGrid):
    """Patches classified by regions: those labelled `positive`, minus those labelled `cut`.

    Tissue is all that differs from the slide's own glass ("glass"), or exceeds Otsu's threshold on the saturation.
    """

    positive: list[str]
    """Labels of the regions that make a patch positive."""
    cut: list[str] = []
    """Labels of the regions to cut out of the positive ones."""
    ignore: list[str] = []
    """Labels that are neither; any other label is an error."""
    tissue: Annotated[float, Field(ge=0, le=1)] | None = None
    """Minimum share of tissue in a patch, 0 to 1; patches with less are dropped and counted."""
    tissue_rule: TissueRule = "glass"
    """How to distinguish tissue from background: `glass` in any stain, `saturation` in H&E."""
    cap: int | None = None
    """Maximum number of patches of a class from one image, drawn at random."""

    def known(self) -> list[str]:
        """Every label that may occur."""
        return [*self.positive, *self.cut, *self.ignore]


class Area(Regional):
    """Class 1 when the regions cover more than `share` of the patch."""

    type: Literal["area"]
    """Rule name."""
    share: Annotated[float, Field(ge=0, lt=1)]
    """A patch is positive if the regions cover more than this share of it."""


class Centre(Regional):
    """Class 1 when the patch's centre, (x + size / 2, y + size / 2), lies in the regions."""

    type: Literal["centre"]
    """Rule name."""


class Middle(PatchGrid):
    """Patches classified by the annotation of their centre: any number of classes, from regions or label masks.

    A patch belongs to the class that covers more than `share` of its central square of `centre` pixels (of the whole
    patch if not given), if all other classes together cover at most `others` of it; patches without such a class are
    dropped and counted. Of several such classes, the one that covers most counts, and of equal ones, as where a region
    lies on another, the first of `classes`; a note counts these. Pixels without annotation and the labels `ignore` do
    not count; other labels are an error. cap: maximum number of patches of a class from one image, drawn with the seed.
    """

    type: Literal["middle"]
    """Rule name."""
    centre: Annotated[int, Field(gt=0)] | None = None
    """Side of the central square in the same pixels; the whole patch if not given."""
    share: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of the central square that the class must cover."""
    others: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Maximum share of it that other classes may cover."""
    ignore: list[str] = []
    """Labels that do not count; any other label that is not a class is an error."""
    cap: Annotated[int, Field(gt=0)] | None = None
    """Maximum number of patches of a class from one image, drawn at random."""

    @model_validator(mode="after")
    def _single(self) -> Self:
        if self.centre is not None and self.centre > self.size:
            raise ValueError("centre must not be larger than size")
        if self.share < 0.5 and self.others > self.share:
            raise ValueError(
                "two classes could cover more than `share`: say a share of at least 0.5, or smaller `others`"
            )
        return self


class Crop(Model):
    """The bounding box of each annotated object, clipped to the image; the object's label is the class.

    A square of `size` that would leave the image is moved into it.
    """

    type: Literal["crop"]
    """Rule name."""
    size: Annotated[int, Field(gt=0)] | None = None
    """Side of a square around each object in pixels, in place of its bounding box; points need it."""
    mpp: Mpp | None = None
    """Micrometres per pixel of the stored crop; as read if not given."""


Rule = Annotated[Whole | Tiles | Presence | Objects | Area | Centre | Middle | Crop, Field(discriminator="type")]
