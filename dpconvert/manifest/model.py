"""The model of a manifest: a TOML file with all facts about one source, validated as a `Manifest`.

A manifest holds facts; the files on disk are read by `dpconvert/readers/datasets/<name>.py`, by the module of another
source if `reader` names it, or by a shape of `dpconvert/readers/layouts/` if the layout is a common one.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from dpconvert.card import MULTILABEL, ORDINAL, REGRESSION, Licence, Model, Target, target_of
from dpconvert.errors import UsageError
from dpconvert.manifest.dense import Dense
from dpconvert.manifest.files import FileKind, Obtain, regular_expression
from dpconvert.manifest.rules import Middle, Mpp, Objects, Presence, Regional, Rule, Tiles, Whole
from dpconvert.manifest.splits import Expected, PublishedCounts, SplitName, SplitPolicy
from dpconvert.names import is_of_names

UNSET = "mpp_override", "dense", "unit", "reader", "file_names"  # keys that digests leave out where they are not given


class Group(Model):
    """The unit that may not cross splits, such as the images of one patient."""

    kind: str = ""
    """Kind of group: image, slide, patient, ...; if not given, `image` if every image is a group of its own, otherwise
    `group`.
    """
    namespace: str = ""
    """Common prefix of the group ids of related sources; the source's own name if not given."""


class ImageFormat(Model):
    """How a sample that is not a whole PNG or JPEG file is stored. JPEG is 4:4:4."""

    format: Literal["png", "jpeg"] = "png"
    """`png` is lossless."""
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    """JPEG quality."""


class PixelRule(Model):
    """How sample values become pixels if a file does not state it: `range` holds the values of black and white.

    It applies to samples of more than 8 bits, signed and floating-point ones; values outside the range are clipped.
    """

    range: tuple[float, float] | None = None
    """Sample values that become black and white, such as `[0, 4095]`."""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError("range must be two numbers, black before white, as [0, 4095]")
        return self


class Erratum(Model):
    """Images known to be wrong, by a pattern of their names. If on, they or only their samples of class 0 are dropped.

    drops "negatives" is for images whose positive objects are not all annotated. `samples` lists single samples in
    place of, or in addition to, the pattern; `mtrain audit-labels` writes such a list.
    """

    name: str
    """Name by which `--errata` turns it on or off."""
    drops: Literal["pictures", "negatives"] = "pictures"
    """What is dropped: the images, or only their negative samples."""
    pictures: str = ""
    """Regular expression, searched in the names of the images; it may be left out if `samples` is given."""
    samples: list[str] | None = None
    """Samples to drop: names of images, or of frames in them, such as `slide_01#xywh=512,0,256,256` (x, y, width and
    height in level-0 pixels).
    """
    reason: str
    """Description of the fault."""
    citation: str
    """Source of the report."""
    task: str = ""
    """Task whose samples are meant, as `dpconvert audit` states it; entries about another task are not used."""
    default: bool = True
    """Whether it is on unless `--errata` says otherwise."""

    _compiles = field_validator("pictures")(regular_expression)

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not self.pictures and self.samples is None:
            raise ValueError("an erratum needs `pictures`, a pattern, or `samples`, a list of names")
        if self.drops == "negatives" and self.samples is not None:
            raise ValueError("`samples` are dropped whatever their class: leave `drops` out")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The fields; unset `samples` and `task` are left out, so that digests of manifests without them stay."""
        fields: dict[str, Any] = serialize(self)
        return {name: value for name, value in fields.items() if name not in ("samples", "task") or value}


class Manifest(Model):
    """All facts about one source."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    """Name of the source on the command line."""
    task: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    """Name of the task and of its folder of shards."""
    title: str = ""
    """Human-readable title."""
    kind: Literal["classification", "detection", "segmentation", "ordinal", "multilabel", "regression"] = (
        "classification"
    )
    """Purpose of the labels. `ordinal`: `classes` are listed in their order, the lowest first, as grades are; the score
    is then the quadratic kappa, which counts distant errors more than near ones. `multilabel`: an image has any number
    of `classes`; the score is the mean area under their ROC curves. `regression`: an image has a number; the score is
    the Pearson correlation.
    """
    classes: list[str] = []
    """Class names in the order of their labels; if not given, the labels found in the source."""
    unit: str | None = None
    """Unit of the numbers of kind `regression`, such as `cells` or `%`."""
    organ: str = ""
    """Organ or tissue."""
    stain: str = ""
    """Stain."""
    mpp: Mpp | None = None
    """Micrometres per pixel of files that state no resolution."""
    allow_outside: bool = False
    """Whether all annotations of an image may lie outside it, which then counts as unannotated."""
    mpp_override: Mpp | None = None
    """Micrometres per pixel of all files, whatever they state themselves."""
    group: Group = Group()
    """Unit that may not cross splits."""
    related: list[str] = []
    """Tasks that share images or patients with this one; excluding one excludes all."""
    licence: Licence = Licence(name="not stated")
    """Terms of use."""
    citation: str = ""
    """Publication to cite."""
    obtain: Obtain = Obtain()
    """Origin of the files."""
    root: str = ""
    """Folder of the files, relative to the manifest; `--source` overrides it."""
    shape: str = ""
    """Layout of the files: folders, table, points, masks, arrays, parquet, webdataset, slides or cytomine; empty if a
    module of the same name reads them.
    """
    reader: str | None = None
    """Name of a source with the same layout, whose module reads these files, too, such as `segpath-epithelium`. It
    takes precedence over `shape`.
    """
    layout: dict[str, Any] = {}
    """Keys of the layout, listed below for each shape."""
    file_names: str | None = None
    """Encoding of file names that are not UTF-8, on disk and in archives, such as `cp932` or `cp1252`. If not given,
    those in zip archives are read as code page 437, and others keep their bytes as `%` and two hexadecimal digits.
    """
    files: dict[str, FileKind] = {}
    """Files that the layout reads: one table for each kind."""
    rule: Rule = Whole()
    """How images become samples."""
    dense: Dense | None = None
    """Masks, points and boxes that samples keep beside their label."""
    pixels: PixelRule = PixelRule()
    """How sample values become pixels where a file does not state it."""
    image: ImageFormat = ImageFormat()
    """How samples are stored."""
    split: dict[SplitName, SplitPolicy] = {"strict": SplitPolicy(share=(0.7, 0.1, 0.2))}
    """Split policies; `strict` is the default, `paper` reproduces the publication, `eva` the benchmark kaiko-eva."""
    paper: PublishedCounts | None = None
    """Counts that the publication states."""
    expected: Expected = Expected()
    """Counts that a conversion of the whole release must give."""
    errata: list[Erratum] = []
    """Known errors of the release."""
    notes: list[str] = []
    """Further information for users of the data; part of the task's card."""
    path: Path = Path()
    """Path of the file that was read; not a key of the file."""

    @property
    def digest(self) -> str:
        """The sha256 of the content of the manifest, independent of its path."""
        unset = {name for name in UNSET if getattr(self, name) is None}
        return hashlib.sha256(self.model_dump_json(exclude={"path", "root"} | unset).encode()).hexdigest()

    @property
    def reads_annotations(self) -> bool:
        """Whether samples depend on annotations, for their labels or for dense targets."""
        return self.dense is not None or not isinstance(self.rule, Whole | Tiles)

    @property
    def target(self) -> Target:
        """What samples are labelled with."""
        return target_of(self.kind)

    @property
    def num_classes(self) -> int:
        """Number of classes; the published number if an export defines the classes, 0 if unknown."""
        return len(self.classes) or (self.paper.classes if self.paper else 0)

    @property
    def namespace(self) -> str:
        """The prefix of group ids."""
        return self.group.namespace or self.name

    def grouped_by(self, kind: str) -> Self:
        """Return the manifest with this kind of group, unless it states one itself."""
        if self.group.kind:
            return self
        return self.model_copy(update={"group": self.group.model_copy(update={"kind": kind})})

    def policy(self, name: str) -> SplitPolicy:
        """Return the split policy of that name.

        Raises:
            UsageError: the manifest has no such policy.
        """
        if name not in self.split:
            have = ", ".join(sorted(self.split))
            raise UsageError(f"no split policy {name!r}", where=self.name, remedy=f"this source has: {have}")
        return self.split[name]

    def under(self, split: str) -> Self:
        """Return the manifest with the changes of a split policy; itself if the policy has none, or does not exist."""
        policy = self.split.get(cast(SplitName, split))
        if policy is None or policy.changes is None:
            return self
        changes = policy.changes
        update: dict[str, Any] = {name: value for name, value in changes if name != "layout" and value}
        update["layout"] = self.layout | changes.layout
        if changes.task and changes.task != self.task:
            update["related"] = [*self.related, self.task]
        return self.model_copy(update=update)._checked()

    @field_validator("file_names")
    @classmethod
    def _is_encoding(cls, encoding: str | None) -> str | None:
        if encoding is not None and not is_of_names(encoding):
            raise ValueError(f"{encoding!r} is not an encoding of file names; 'cp932', 'cp1252' or 'gb18030' are")
        return encoding

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in self.split:
            self.under(name)
        return self._checked()

    def _checked(self) -> Self:
        if isinstance(self.rule, Presence | Regional) and len(self.classes) != 2:
            raise ValueError(f"rule {self.rule.type!r} gives two classes, `classes` names {len(self.classes)}")
        if isinstance(self.rule, Middle) and not self.classes:
            raise ValueError("rule 'middle' needs `classes`")
        if isinstance(self.rule, Objects):
            wanted = {self.rule.positive, self.rule.none, self.rule.other or self.rule.none}
            if wanted != set(self.classes):
                raise ValueError("`classes` must name the rule's positive, none and other")
        if self.kind == ORDINAL and len(self.classes) < 3:
            raise ValueError("kind 'ordinal' needs at least three `classes`, listed in their order")
        if self.kind in (MULTILABEL, REGRESSION):
            self._check_targets()
        elif self.unit is not None:
            raise ValueError(f"`unit` is that of numbers, which kind {self.kind!r} does not have")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("a class is named twice")
        if "strict" not in self.split:
            raise ValueError("a split policy 'strict' is needed: it is the default")
        return self

    def _check_targets(self) -> None:
        """Check what several labels or a number for each image exclude."""
        if not isinstance(self.rule, Whole | Tiles):
            raise ValueError(f"kind {self.kind!r} needs the rule 'whole' or 'tiles', not {self.rule.type!r}")
        if any(erratum.drops == "negatives" for erratum in self.errata):
            raise ValueError(f"an erratum of kind {self.kind!r} cannot drop negatives, which have no class here")
        if self.kind == MULTILABEL and self.unit is not None:
            raise ValueError("`unit` is that of numbers, which kind 'multilabel' does not have")
        if self.kind == REGRESSION and (self.classes or self.expected.classes):
            raise ValueError("kind 'regression' has no `classes`: each image has a number")
