"""A manifest (TOML) in, a validated `Manifest` out: all that is known about one source, written once.

A manifest holds facts; what its files look like on disk is read by `dpconvert/readers/datasets/<name>.py`, or by a
shape of `dpconvert/readers/layouts/` where the layout is a common one.
"""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from dpconvert.card import SPLITS, Licence, Model, Split
from dpconvert.errors import UsageError

SANE_MPP = 0.05, 10.0  # micrometres per pixel; beyond, whatever says so is an error
Mpp = Annotated[float, Field(ge=SANE_MPP[0], le=SANE_MPP[1])]


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return text


TissueRule = Literal["glass", "saturation"]


class FileKind(Model):
    """One kind of file of a source."""

    pattern: str
    """Regular expression, searched in file names relative to the source folder, with `/` between their parts."""
    what: str = "files"
    """Description of these files, for messages."""
    example: str = ""
    """Example of a file name, for messages."""
    expected: int | None = None
    """Number of these files in the complete release."""
    optional: bool = False
    """Whether the source can be converted without them."""

    _compiles = field_validator("pattern")(_expression)


class Archive(Model):
    """A file to download, or, with `numbers`, a series of numbered files."""

    name: str
    """Name of the file."""
    url: str = ""
    """Address of the file."""
    size: int | None = None
    """Size in bytes."""
    digest: str = ""
    """`sha256:...` or `md5:...`; empty if none was published."""
    numbers: list[tuple[int, int]] = []
    """Ranges of numbers, each [first, last]: one file per number, which replaces `{n}` in `name` and `url`."""

    def files(self) -> list[Archive]:
        """The files that it stands for."""
        ranges = (range(first, last + 1) for first, last in self.numbers)
        named = [Archive(name=self.name.format(n=n), url=self.url.format(n=n)) for numbers in ranges for n in numbers]
        return named if self.numbers else [self]


class Obtain(Model):
    """Where to get the source."""

    url: str = ""
    """Address of the source's page."""
    text: str = ""
    """How to get the files and how to arrange them."""
    archives: list[Archive] = []
    """Files that `dpconvert fetch` downloads."""


class Group(Model):
    """The unit that is never divided between splits."""

    kind: str = "image"
    """What a group is: patient, slide or image."""
    namespace: str = ""
    """First part of the group ids. Sources that show the same patients share it. Default: the name of the source."""


class Whole(Model):
    """Every image is one sample."""

    type: Literal["whole"] = "whole"
    """Selects this rule."""


class Grid(Model):
    """A square patch of `size` pixels every `size - overlap` pixels, without partial patches at the border.

    The origin is (0, 0), or the corner of the slide's bounds if the file states them. With `mpp`, the frame read from a
    slide of 0.25 um/px is twice as large, in pixels, as that read from one of 0.5 um/px.
    """

    size: Annotated[int, Field(gt=0)]
    """Side of a patch, in pixels of level 0 or, with `mpp`, of that resolution."""
    overlap: Annotated[int, Field(ge=0)] = 0
    """Overlap of neighbouring patches, in the same pixels."""
    mpp: Mpp | None = None
    """Resolution of the patches in micrometres per pixel."""
    stored: Annotated[int, Field(gt=0)] | None = None
    """Side of the stored patch in pixels. Default: `size` if `mpp` is given, otherwise as read."""
    own_tiles: bool = False
    """Use the slide's own JPEG tiles as patches, on the level that is nearest to `size` and `stored`."""

    @model_validator(mode="after")
    def _advances(self) -> Self:
        if self.overlap >= self.size:
            raise ValueError("overlap must be smaller than size")
        return self


class Tiles(Grid):
    """The patches of a grid, each with the label of its image."""

    type: Literal["tiles"]
    """Selects this rule."""


class Presence(Grid):
    """The patches of a grid: class 1 if a point with a `positive` label lies strictly inside, otherwise class 0."""

    type: Literal["presence"]
    """Selects this rule."""
    positive: list[str]
    """Labels of the points that make a patch positive."""


class Objects(Grid):
    """Sparse objects: the patches of a grid without a `positive` point, and shifted patches around each such point."""

    type: Literal["objects"]
    """Selects this rule."""
    positive: str
    """Label of the objects, and their class."""
    none: str
    """Class of the patches without points."""
    other: str | None = None
    """Label of other points, and the class of the grid patches that contain one."""
    crops: Annotated[int, Field(gt=0)] = 10
    """Number of shifted patches around each object."""


class Regional(Grid):
    """The patches of a grid, classified by annotated regions: those labelled `positive`, less those labelled `cut`."""

    positive: list[str]
    """Labels of the regions that count."""
    cut: list[str] = []
    """Labels of the regions that are subtracted from them."""
    ignore: list[str] = []
    """Labels without effect. A label that is in none of the three lists is an error."""
    tissue: Annotated[float, Field(ge=0, le=1)] | None = None
    """Minimum share of tissue in a patch; patches with less are dropped."""
    tissue_rule: TissueRule = "glass"
    """How tissue is detected: by its difference from the slide's glass (any stain), or by its saturation (H&E)."""
    cap: int | None = None
    """Maximum number of patches per class and image, drawn at random."""

    def known(self) -> list[str]:
        """Every label that may occur."""
        return [*self.positive, *self.cut, *self.ignore]


class Area(Regional):
    """Class 1 if the regions cover more than `share` of the patch."""

    type: Literal["area"]
    """Selects this rule."""
    share: Annotated[float, Field(ge=0, lt=1)]
    """Share of the patch that the regions must exceed."""


class Centre(Regional):
    """Class 1 if the centre of the patch, (x + size / 2, y + size / 2), lies in the regions."""

    type: Literal["centre"]
    """Selects this rule."""


class Crop(Model):
    """One crop per annotated object: its bounding box, clipped to the image. The label of the object is the class."""

    type: Literal["crop"]
    """Selects this rule."""
    size: Annotated[int, Field(gt=0)] | None = None
    """Side in pixels of a square around the centre of the object, instead of the bounding box. At the border of the
    image, the square is moved inside. Required for points."""
    mpp: Mpp | None = None
    """Resolution of the stored crop, and of `size`, in micrometres per pixel. Default: as read."""


Rule = Annotated[Whole | Tiles | Presence | Objects | Area | Centre | Crop, Field(discriminator="type")]


class ImageFormat(Model):
    """How samples are stored that are not complete PNG or JPEG files."""

    format: Literal["png", "jpeg"] = "png"
    """File format; JPEG is encoded as 4:4:4."""
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    """JPEG quality."""


class PixelRule(Model):
    """How sample values become pixels if the file does not define it."""

    range: tuple[float, float] | None = None
    """Values that become black and white; values beyond are clipped. Applies to samples of more than 8 bits, and to
    signed and floating-point samples."""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError("range must be two numbers, black before white, as [0, 4095]")
        return self


class SplitPolicy(Model):
    """How groups go to splits: the named ones first, then official sets, then the rest.

    The rest is drawn by group (or by what `unit` says: picture, or the scan that each picture's attributes name) in
    proportions of `share` (train, val, test); without `share` it goes to train. draw "balanced": the sizes follow
    `share` and every class occurs in every split where there are groups enough. draw "hashed": each group's name alone
    decides, so that tasks of one namespace agree on the groups that they share, whichever others they have; sizes then
    follow `share` on average only.
    """

    unit: Literal["group", "picture", "scan"] = "group"
    """What is drawn as a whole: a group, an image (`picture`), or a scan."""
    draw: Literal["balanced", "hashed"] = "balanced"
    """How sets are drawn: balanced in size and class, or from the name of each group."""
    train: list[str] = []
    val: list[str] = []
    test: list[str] = []
    official: bool = False
    """Whether the sets that the files state are kept."""
    share: tuple[float, float, float] | None = None
    """Proportions of train, val and test. Without them, what remains goes to train."""
    note: str = ""

    def named(self) -> dict[str, Split]:
        """Group -> split for the groups that the manifest names."""
        return {group: split for split in SPLITS for group in getattr(self, split)}

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        if len(self.named()) != len(self.train) + len(self.val) + len(self.test):
            raise ValueError("a group is named twice")
        if self.share is not None and (min(self.share) < 0 or sum(self.share) <= 0):
            raise ValueError("share must be three numbers, none negative")
        return self


class Published(Model):
    """The counts of this task in the paper."""

    total: int
    """Number of images."""
    train: int
    """Images of the training set."""
    val: int
    """Images of the validation set."""
    test: int
    """Images of the test set."""
    classes: int
    """Number of classes."""


class Expected(Model):
    """The counts that converting the complete release must give."""

    total: int | None = None
    """Number of samples."""
    classes: list[int] | None = None
    """Samples per class, in the order of labels."""
    paper: dict[Split, int] = {}
    """Samples per set of the split `paper`."""
    strict: dict[Split, int] = {}
    """Samples per set of the split `strict`."""
    reasons: dict[str, str] = {}
    """Reasons why a count may differ, by its name: `total`, `strict.train` and so on, or the name of a class."""


class Erratum(Model):
    """Images that are known to be wrong, and are left out."""

    name: str
    """Name for `--errata`."""
    drops: Literal["pictures", "negatives"] = "pictures"
    """What is left out: all samples of the images, or only those of class 0, for images whose positive objects are not
    all annotated."""
    pictures: str
    """Regular expression for the names of the images."""
    reason: str
    """What is wrong."""
    citation: str
    """Who found it."""
    default: bool = True
    """Whether the images are left out by default."""

    _compiles = field_validator("pictures")(_expression)


class Manifest(Model):
    """All that is known about one source."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    """Name of the source."""
    task: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    """Name of the task, and of its folder of shards."""
    title: str = ""
    """Title in one line."""
    kind: Literal["classification", "detection", "segmentation"] = "classification"
    """What the source is annotated for."""
    classes: list[str] = []
    """Names of the classes, in the order of labels 0, 1, ... If empty, they come from the source."""
    organ: str = ""
    """Organ, for the record."""
    stain: str = ""
    """Stain, for the record."""
    mpp: Mpp | None = None
    """Micrometres per pixel of files that do not state it."""
    allow_outside: bool = False
    """Whether all annotations of an image may lie outside it; the image then counts as one without annotations."""
    mpp_override: Mpp | None = None
    """Micrometres per pixel of all files, whatever they state."""
    group: Group = Group()
    """The unit that is never divided between splits."""
    related: list[str] = []
    """Tasks that share slides, patients or annotations with this one."""
    licence: Licence = Licence(name="not stated")
    """Licence of the images."""
    citation: str = ""
    """Publication to cite."""
    obtain: Obtain = Obtain()
    """Where to get the source."""
    root: str = ""
    """Folder of the source's files, relative to the manifest, if `--source` is not given."""
    shape: str = ""
    """Layout of the files: folders, table, points, masks, slides or cytomine. Empty if the source has a module."""
    layout: dict[str, Any] = {}
    """Options of the shape."""
    files: dict[str, FileKind] = {}
    """Kinds of files, by name."""
    rule: Rule = Whole()
    """How images become samples."""
    pixels: PixelRule = PixelRule()
    """How sample values become pixels if the file does not define it."""
    image: ImageFormat = ImageFormat()
    """How samples are stored that are not complete PNG or JPEG files."""
    split: dict[Literal["strict", "paper"], SplitPolicy] = {"strict": SplitPolicy(share=(0.7, 0.1, 0.2))}
    """Split policies; `strict` is required and the default of `--split`."""
    paper: Published | None = None
    """The counts of this task in the paper."""
    expected: Expected = Expected()
    """The counts that converting the complete release must give."""
    errata: list[Erratum] = []
    """Images that are known to be wrong."""
    notes: list[str] = []
    """Further facts for users."""
    path: Path = Path()

    @cached_property
    def digest(self) -> str:
        """sha256 of what the manifest says, wherever it lies."""
        unset = {"mpp_override"} if self.mpp_override is None else set()
        return hashlib.sha256(self.model_dump_json(exclude={"path", "root"} | unset).encode()).hexdigest()

    @property
    def num_classes(self) -> int:
        """Classes of the task; the published number where they come with an export, 0 where nothing tells."""
        return len(self.classes) or (self.paper.classes if self.paper else 0)

    @property
    def namespace(self) -> str:
        """What group ids begin with."""
        return self.group.namespace or self.name

    def policy(self, name: str) -> SplitPolicy:
        """The split policy of that name.

        Raises:
            UsageError: the manifest has no such policy.
        """
        if name not in self.split:
            have = ", ".join(sorted(self.split))
            raise UsageError(f"no split policy {name!r}", where=self.name, remedy=f"this source has: {have}")
        return self.split[name]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if isinstance(self.rule, Presence | Regional) and len(self.classes) != 2:
            raise ValueError(f"rule {self.rule.type!r} gives two classes, `classes` names {len(self.classes)}")
        if isinstance(self.rule, Objects):
            wanted = {self.rule.positive, self.rule.none, self.rule.other or self.rule.none}
            if wanted != set(self.classes):
                raise ValueError("`classes` must name the rule's positive, none and other")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("a class is named twice")
        if "strict" not in self.split:
            raise ValueError("a split policy 'strict' is needed: it is the default")
        return self
