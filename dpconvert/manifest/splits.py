"""How the samples of a source are divided, and the counts that a conversion must give."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from dpconvert.card import Model, Split
from dpconvert.manifest.rules import Rule

SplitName = Literal["strict", "paper", "eva"]


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


class PublishedCounts(Model):
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
