"""The model of a manifest: a TOML file with all facts about one source, validated as a `Manifest`.

A manifest holds facts; the files on disk are read by `dpconvert/readers/datasets/<name>.py`, or by a shape of
`dpconvert/readers/layouts/` if the layout is a common one.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from dpconvert.card import ORDINAL, Licence, Model, Split
from dpconvert.errors import UsageError
from dpconvert.manifest.dense import Dense
from dpconvert.manifest.rules import Middle, Mpp, Objects, Presence, Regional, Rule, Tiles, Whole

SplitName = Literal["strict", "paper", "eva"]


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return text


class FileKind(Model):
    """One kind of file of a source. `pattern` is searched in names relative to the source folder ('/' as separator)."""

    pattern: str
    """Regular expression, searched in the names of the files; the layout reads its named groups."""
    what: str = "files"
    """Description of these files, for messages."""
    example: str = ""
    """Example of the name of such a file, for messages."""
    expected: int | None = None
    """Number of such files in the whole release; a smaller number is reported."""
    optional: bool = False
    """Whether a source may lack these files."""

    _compiles = field_validator("pattern")(_expression)


class Archive(Model):
    """A file to download."""

    name: str
    """File name of the download; with `numbers`, `{n}` stands for the number."""
    url: str = ""
    """Address of the download."""
    size: int | None = None
    """Size in bytes."""
    digest: str = ""
    """`sha256:...` or `md5:...`; empty if none was published."""
    numbers: list[tuple[int, int]] = []
    """Ranges of first and last number, if the entry stands for one file per number."""

    def files(self) -> list[Archive]:
        """The files that the entry stands for."""
        ranges = (range(first, last + 1) for first, last in self.numbers)
        named = [Archive(name=self.name.format(n=n), url=self.url.format(n=n)) for numbers in ranges for n in numbers]
        return named if self.numbers else [self]


class Obtain(Model):
    """The origin of the source, for `show`."""

    url: str = ""
    """Web page of the dataset."""
    text: str = ""
    """How to get the files, in one sentence."""
    archives: list[Archive] = []
    """Files that `dpconvert fetch` downloads."""


class Group(Model):
    """The unit that may not cross splits, such as the images of one patient."""

    kind: str = "image"
    """Kind of group: image, slide, patient, ..."""
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


def _without_unset(model: Model, dumped: dict[str, Any], name: str) -> dict[str, Any]:
    """Drop a key that has its default, so that manifests without it keep their digest."""
    return dumped if name in model.model_fields_set else {key: v for key, v in dumped.items() if key != name}


class Expected(Model):
    """Counts that the whole release must give; `reasons` explains, by the same names, why a count may differ."""

    total: int | None = None
    """Total number of samples."""
    classes: list[int] | None = None
    """Samples of each class, in the order of `classes`."""
    paper: dict[Split, int] = {}
    """Samples of each set under the split `paper`."""
    strict: dict[Split, int] = {}
    """Samples of each set under the split `strict`."""
    eva: dict[Split, int] = {}
    """Samples of each set under the split `eva`."""
    reasons: dict[str, str] = {}
    """Reasons why a count may differ, by its name."""

    @model_serializer(mode="wrap")
    def _dumped(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_unset(self, dump(self), "eva")


class Changes(Model):
    """Keys of the manifest that have other values under one split, such as that of a benchmark with its own classes.

    A task with another name and other samples is `related` to the task of the manifest.
    """

    task: str = ""
    """Name of the task; that of the manifest if not given."""
    title: str = ""
    """Human-readable title; that of the manifest if not given."""
    classes: list[str] | None = None
    """Class names in the order of their labels."""
    rule: Rule | None = None
    """How images become samples."""
    layout: dict[str, Any] = {}
    """Keys of `[layout]` that are added or replaced."""
    expected: Expected | None = None
    """Counts that a conversion of the whole release must give."""


class SplitPolicy(Model):
    """How groups are assigned to splits: the named ones first, then official sets, then the rest.

    The rest is drawn by group (or by `unit`: image, or the scan that each image's attributes name) in proportions of
    `share` (train, val, test); without `share` it goes to train. draw "balanced": the sizes follow `share`, and every
    class occurs in every split if it has enough groups. draw "hashed": the split depends only on the name of the group,
    so that tasks of one namespace agree on their common groups, whatever others they have; sizes then follow `share`
    only on average.

    `val` names the groups of the validation set, or is the share of the training set that becomes one, drawn by group
    according to `draw`. It is for releases with only a training and a test set; groups named in `train` stay there.
    """

    unit: Literal["group", "picture", "scan"] = "group"
    """Unit that is kept within one split."""
    draw: Literal["balanced", "hashed"] = "balanced"
    """How the rest is drawn: `balanced` or `hashed`."""
    train: list[str] = []
    """Groups of the training set."""
    val: list[str] | float = []
    """Groups of the validation set, or the share of the training set that becomes one."""
    test: list[str] = []
    """Groups of the test set."""
    official: bool = False
    """Whether to keep the release's own sets."""
    share: tuple[float, float, float] | None = None
    """Proportions of train, val and test for the groups that are not named."""
    note: str = ""
    """Further remarks on this split."""
    changes: Changes | None = None
    """Keys of the manifest that have other values under this split."""

    @property
    def validation(self) -> float | None:
        """The share of the training set that becomes the validation set, if `val` is a number."""
        return None if isinstance(self.val, list) else self.val

    def named(self) -> dict[str, Split]:
        """Mapping group -> split for the groups that the manifest names."""
        return {group: split for split, groups in self._lists() for group in groups}

    @model_serializer(mode="wrap")
    def _dumped(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_unset(self, dump(self), "changes")

    def _lists(self) -> list[tuple[Split, list[str]]]:
        val = self.val if isinstance(self.val, list) else []
        return [("train", self.train), ("val", val), ("test", self.test)]

    @field_validator("val", mode="before")
    @classmethod
    def _groups_or_share(cls, val: Any) -> Any:
        number = isinstance(val, int | float) and not isinstance(val, bool)
        if not isinstance(val, list) and not (number and 0 < val < 1):
            raise ValueError("must be a list of groups, or a share of the training set between 0 and 1, as 0.15")
        return val

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        if len(self.named()) != sum(len(groups) for _, groups in self._lists()):
            raise ValueError("a group is named twice")
        if self.share is not None and (min(self.share) < 0 or sum(self.share) <= 0):
            raise ValueError("share must be three numbers, none negative")
        if self.share is not None and self.share[1] > 0 and self.validation is not None:
            raise ValueError("`share` and `val` both draw a validation set: leave one out")
        return self


class Published(Model):
    """The paper's own counts of this task (images per set)."""

    total: int
    """All images."""
    train: int
    """Training images."""
    val: int
    """Validation images."""
    test: int
    """Test images."""
    classes: int
    """Classes."""


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
    default: bool = True
    """Whether it is on unless `--errata` says otherwise."""

    _compiles = field_validator("pictures")(_expression)

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not self.pictures and self.samples is None:
            raise ValueError("an erratum needs `pictures`, a pattern, or `samples`, a list of names")
        if self.drops == "negatives" and self.samples is not None:
            raise ValueError("`samples` are dropped whatever their class: leave `drops` out")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The fields; an unset `samples` is left out, so that the digests of manifests without it do not change."""
        fields: dict[str, Any] = serialize(self)
        return {name: value for name, value in fields.items() if name != "samples" or value is not None}


class Manifest(Model):
    """All facts about one source."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    """Name of the source on the command line."""
    task: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    """Name of the task and of its folder of shards."""
    title: str = ""
    """Human-readable title."""
    kind: Literal["classification", "detection", "segmentation", "ordinal"] = "classification"
    """Purpose of the labels. `ordinal`: `classes` are listed in their order, the lowest first, as grades are; the score
    is then the quadratic kappa, which counts distant errors more than near ones.
    """
    classes: list[str] = []
    """Class names in the order of their labels; if not given, the labels found in the source."""
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
    """Layout of the files: folders, table, points, masks, slides or cytomine; empty if a module of the same name reads
    them.
    """
    layout: dict[str, Any] = {}
    """Keys of the layout, listed below for each shape."""
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
    paper: Published | None = None
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
        unset = {name for name in ("mpp_override", "dense") if getattr(self, name) is None}
        return hashlib.sha256(self.model_dump_json(exclude={"path", "root"} | unset).encode()).hexdigest()

    @property
    def reads_annotations(self) -> bool:
        """Whether samples depend on annotations, for their labels or for dense targets."""
        return self.dense is not None or not isinstance(self.rule, Whole | Tiles)

    @property
    def num_classes(self) -> int:
        """Number of classes; the published number if an export defines the classes, 0 if unknown."""
        return len(self.classes) or (self.paper.classes if self.paper else 0)

    @property
    def namespace(self) -> str:
        """The prefix of group ids."""
        return self.group.namespace or self.name

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
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("a class is named twice")
        if "strict" not in self.split:
            raise ValueError("a split policy 'strict' is needed: it is the default")
        return self
