"""What a table says of a network: how timm builds it, what its features are, which images it expects, its licence.

A table is one TOML file; the names of tensors in the files that its authors publish are separate tables, in
manifests/backbones/names. Nothing here loads torch.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from dpconvert.card import Licence

Triple = tuple[float, float, float]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$", to_lower=True)]
Features = Literal["pooled", "cls", "mean", "cls+mean"]
Interpolation = Literal["bilinear", "bicubic"]
# what the features of an image depend on, the weights apart
DETERMINING = ("timm", "options", "features", "mean", "std", "interpolation", "norm_eps")


class StrictModel(BaseModel):
    """A part of a table. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Naming(StrictModel):
    """Names of the tensors in one kind of file, and timm's names for them."""

    title: str
    """Human-readable description of the names."""
    rename: dict[str, str]
    """Regular expression for a whole name in the file -> the name in the network. Tensors whose new names end in @0,
    @1, ... are concatenated along their first dimension."""
    drop: tuple[str, ...] = ()
    """Regular expressions for names of tensors that no feature depends on."""
    fold_class_position: bool = False
    """The first position of the file's position embedding is the class token's: where the network has no such position,
    it is added to the class token."""

    @field_validator("rename", "drop")
    @classmethod
    def _expressions(cls, given: Any) -> Any:
        for pattern in given:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"not a regular expression: {pattern!r}: {error}") from None
        return given


class PublishedShape(StrictModel):
    """The configuration that the authors publish; a test compares it with the network that is built."""

    width: int
    """Width of the tokens."""
    depth: int
    """Number of blocks."""
    heads: int
    """Number of attention heads."""
    tokens: int
    """Patch tokens of an image at the size that the position embedding was made for."""
    prefix: int
    """Tokens before these: the class token and registers."""
    parameters: str
    """As it was published: 631.2M, 1.1B."""

    def agrees(self, parameters: int) -> bool:
        """Whether a number of parameters is the published one, to the published digits."""
        number, unit = self.parameters[:-1], {"M": 1e6, "B": 1e9}[self.parameters[-1]]
        digits = len(number.partition(".")[2])
        return abs(parameters / unit - float(number)) <= 10.0**-digits


class BackboneCard(StrictModel):
    """One network."""

    name: str
    """Name for `--backbone`; the name of the file if not given."""
    title: str
    """Human-readable name of the network."""
    timm: str | None = None
    """Name of the architecture in timm."""
    options: dict[str, Any] = {}
    """Options of timm's constructor. A string for `mlp_layer` names a class of timm.layers."""
    unavailable: str | None = None
    """Why the network cannot be built without foreign code."""
    features: Features = "pooled"
    """pooled: what timm passes to a classifier; cls: the class token; mean: the mean of the patch tokens; cls+mean:
    both, concatenated. The network itself says which tokens precede those of the patches."""
    mean: Triple | None = None
    """Mean of each channel, for pixels from 0 to 1; timm's own if not given."""
    std: Triple | None = None
    """Standard deviation of each channel; timm's own if not given."""
    interpolation: Interpolation = "bilinear"
    """How images are resized."""
    size: Annotated[int, Field(ge=16)] | None = None
    """Side of the input in pixels, unless `--size` says otherwise."""
    patch: Annotated[int, Field(ge=1)] | None = None
    """Side of a patch in pixels; sizes must be multiples of it."""
    norm_eps: Annotated[float, Field(gt=0)] | None = None
    """Epsilon of all layer normalizations, where it is not timm's."""
    mpp: Annotated[float, Field(gt=0)] | None = None
    """Micrometres per pixel of the images that it was trained on."""
    names: tuple[str, ...] = ()
    """Tables of tensor names that its files may use, besides timm's own names."""
    naming: dict[str, Naming] = {}
    """Tables of tensor names of your own."""
    files: tuple[str, ...] = ()
    """File names under which the authors publish it."""
    sha256: dict[str, Digest] = {}
    """File -> its published digest, which a weights file of that name must have."""
    url: str = ""
    """Page where it is published."""
    paper: str = ""
    """Publication to cite."""
    gated: bool = False
    """Whether access must be requested."""
    licence: Licence = Licence(name="not stated")
    """Licence of the weights. `open`: whether anyone may redistribute what is made of them."""
    reported: tuple[str, ...] = ()
    """Keys whose values were not confirmed with the authors' own pages."""
    note: str = ""
    """Anything else that users must know."""
    published: PublishedShape | None = None
    """The published configuration, which a test compares with the network."""

    @model_validator(mode="after")
    def _built_or_not(self) -> BackboneCard:
        if (self.timm is None) == (self.unavailable is None):
            raise ValueError("give either timm, or unavailable with the reason")
        return self

    @property
    def licensed(self) -> bool:
        """Whether the table says anything of a licence."""
        return self.licence.name != "not stated"

    def determining(self) -> dict[str, Any]:
        """What the features depend on, besides the weights, as JSON has it."""
        return self.model_dump(mode="json", include=set(DETERMINING))

    @property
    def digest(self) -> str:
        """A name for `determining`."""
        return hashlib.sha256(json.dumps(self.determining(), sort_keys=True).encode()).hexdigest()[:24]

    def size_fault(self, size: int) -> str | None:
        """Why it does not take images of this size, with the nearest sizes that it takes."""
        if self.patch is None or size % self.patch == 0:
            return None
        below = size // self.patch * self.patch
        nearest = " or ".join(str(side) for side in (below, below + self.patch) if side)
        return f"{self.name} takes multiples of its patches' {self.patch} px: give --size {nearest}"
