"""The options of a conversion."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, ValidationError, model_validator

from dpconvert.card import Model
from dpconvert.errors import UsageError
from dpconvert.manifest.model import ImageFormat, Manifest
from dpconvert.manifest.rules import Middle, Mpp, Presence, Regional, Tiles
from dpconvert.manifest.splits import SplitName
from dpconvert.validation_errors import first_fault

Positive = Annotated[int, Field(ge=1)]


class Options(Model):
    """The options of a conversion; every one affects the bytes of the shards.

    Raises:
        UsageError: An option that does not exist, or a value that it does not take.
    """

    split: SplitName = "strict"
    errata: str = "default"
    image_format: Literal["manifest", "png", "jpeg"] = "manifest"
    samples_per_shard: Positive = 1000
    limit: Positive | None = None
    skip_failed: bool = False
    mpp: Mpp | None = None
    mpp_override: Mpp | None = None
    lossless_tiles: bool = False
    allow_outside: bool = False
    dense: bool = False

    @model_validator(mode="wrap")
    @classmethod
    def _checked(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(given)
        except ValidationError as error:
            fault = first_fault(error, cls)
            raise UsageError(f"Options: {fault}", found=fault.found) from None

    def with_targets(self, manifest: Manifest) -> Manifest:
        """Return the manifest under the split, with the dense targets that samples keep, or without any.

        Raises:
            UsageError: `dense` is given, but the manifest has no dense targets.
        """
        manifest = manifest.under(self.split)
        if self.dense and manifest.dense is None:
            raise UsageError(
                "--dense: the manifest states no dense targets",
                where=manifest.name,
                remedy="add a table [dense.seg], [dense.points] or [dense.boxes] to a manifest of your own",
            )
        if manifest.dense is None or not manifest.dense.optional:
            return manifest
        kept = manifest.dense.model_copy(update={"optional": False}) if self.dense else None
        return manifest.model_copy(update={"dense": kept})

    def applied_to(self, manifest: Manifest) -> Manifest:
        """Return the manifest with the user's overrides: the resolution of slides, and the tile grid.

        Raises:
            UsageError: `lossless_tiles` is given but patches are not on a grid, or `dense` is given but the manifest
                has no dense targets.
        """
        manifest = self.with_targets(manifest)
        given = {"mpp": self.mpp, "mpp_override": self.mpp_override, "allow_outside": self.allow_outside or None}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if self.lossless_tiles:
            if not isinstance(manifest.rule, Tiles | Presence | Regional | Middle):
                raise UsageError("--lossless-tiles is for patches on a grid", where=manifest.name)
            changes |= {
                "rule": manifest.rule.model_copy(update={"own_tiles": True}),
                "image": manifest.image.model_copy(update={"format": "jpeg"}),
            }
        return manifest.model_copy(update=changes) if changes else manifest

    def text(self) -> str:
        """Return the options as text, in the form of earlier versions where these have the same options."""
        return self.model_dump_json(exclude=self._unused())

    def fields(self) -> dict[str, Any]:
        """Return the options as fields of task.json."""
        return self.model_dump(exclude=None if self.dense else {"dense"})

    def _unused(self) -> set[str]:
        unused = {"mpp_override"} if self.mpp_override is None else set()
        return unused if self.dense else unused | {"dense"}

    def image(self, manifest: Manifest) -> ImageFormat:
        """The format in which samples that are not whole files are stored."""
        if self.image_format == "manifest":
            return manifest.image
        return manifest.image.model_copy(update={"format": self.image_format})
