"""What a user may choose about a conversion."""

from __future__ import annotations

from typing import Any, Literal

from dpconvert.card import Model
from dpconvert.errors import UsageError
from dpconvert.manifest.model import ImageFormat, Manifest
from dpconvert.manifest.rules import Middle, Mpp, Presence, Regional, Tiles


class Options(Model):
    """What a user may choose about a conversion; all of it decides bytes."""

    split: Literal["strict", "paper"] = "strict"
    errata: str = "default"
    image_format: Literal["manifest", "png", "jpeg"] = "manifest"
    samples_per_shard: int = 1000
    limit: int | None = None
    skip_failed: bool = False
    mpp: Mpp | None = None
    mpp_override: Mpp | None = None
    lossless_tiles: bool = False
    allow_outside: bool = False
    dense: bool = False

    def with_targets(self, manifest: Manifest) -> Manifest:
        """The manifest with the dense targets that samples are to keep, or without any.

        Raises:
            UsageError: `dense` for a manifest that has none.
        """
        if self.dense and manifest.dense is None:
            raise UsageError(
                "--dense: the manifest states no dense targets", where=manifest.name,
                remedy="add a table [dense.seg], [dense.points] or [dense.boxes] to a manifest of your own",
            )  # fmt: skip
        if manifest.dense is None or not manifest.dense.optional:
            return manifest
        kept = manifest.dense.model_copy(update={"optional": False}) if self.dense else None
        return manifest.model_copy(update={"dense": kept})

    def applied_to(self, manifest: Manifest) -> Manifest:
        """The manifest with what the user knows better: the resolution of slides, their own grid.

        Raises:
            UsageError: `lossless_tiles` for a rule whose patches are not on a grid, or `dense` for a manifest without
                dense targets.
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
        """What was chosen, in the words that earlier versions know where it is what they offer."""
        return self.model_dump_json(exclude=self._unused())

    def fields(self) -> dict[str, Any]:
        """What was chosen, for task.json."""
        return self.model_dump(exclude=None if self.dense else {"dense"})

    def _unused(self) -> set[str]:
        unused = {"mpp_override"} if self.mpp_override is None else set()
        return unused if self.dense else unused | {"dense"}

    def image(self, manifest: Manifest) -> ImageFormat:
        """How samples that are not whole files are stored."""
        if self.image_format == "manifest":
            return manifest.image
        return manifest.image.model_copy(update={"format": self.image_format})
