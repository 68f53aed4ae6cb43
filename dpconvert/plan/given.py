"""Notes on settings of the manifest and options that a conversion does not use.

For each kind of setting, a function of this module compares the given values with those that the conversion reads.
Keys of [layout] and named groups of patterns are a shape's own: its module may have

    GROUPS                          kind of files -> named groups of its pattern that are read
    LABELS                          what samples are labelled with -> named groups that are read for it only
    idle(source) -> Iterator[Idle]  keys of [layout] that have no effect for these files
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from dpconvert import readers
from dpconvert.annotations.parsing.units import MICROMETRES
from dpconvert.errors import cut
from dpconvert.image.spacing import SQUARE
from dpconvert.manifest.catalog import is_packaged
from dpconvert.manifest.model import Manifest
from dpconvert.manifest.rules import Crop, PatchGrid, Regional
from dpconvert.plan.options import Options
from dpconvert.plan.split import spelt
from dpconvert.plural import counted
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage

SHOWN = 3


@dataclass(frozen=True)
class Given:
    """A conversion as requested, and what it found. stated: resolutions that files state."""

    manifest: Manifest
    options: Options
    source: Source
    images: list[SourceImage]
    stated: list[float]


def not_used(given: Given) -> list[str]:
    """Return a note for each given setting that is not used, or that acts otherwise than it seems."""
    parts = (_resolution, _sizes, _errata, _pixels, _rule, _image, _split, _patterns, _layout)
    return [note for part in parts for note in part(given)]


def _resolution(given: Given) -> Iterator[str]:
    """Note an unused `mpp` if images state their own; the manifest's may agree with theirs."""
    options, mpp = given.options, given.manifest.mpp
    override, unit = given.manifest.mpp_override, given.manifest.layout.get("unit")
    if override is not None and unit in MICROMETRES:
        yield (
            f'coordinates in "{unit}" become pixels by the given {override:g} um per pixel, not by what files state: '
            "right only if the program that wrote them used it, too"
        )
    if options.mpp is not None and options.mpp_override is not None:
        yield f"--mpp {options.mpp:g} is not used: --mpp-override {options.mpp_override:g} takes precedence"
    elif options.mpp is not None and given.stated:
        where = f"where a file states its own resolution ({_of_images(len(given.stated), given)})"
        yield f"--mpp {options.mpp:g} is not used {where}; --mpp-override {options.mpp:g} replaces what files state"
    elif options.mpp is None and mpp is not None and given.manifest.mpp_override is None:
        other = [stated for stated in given.stated if max(stated, mpp) > SQUARE * min(stated, mpp)]
        if other:
            yield (
                f"`mpp = {mpp:g}` is not used where a file states another resolution ({_of_images(len(other), given)}, "
                f"the first {other[0]:.4g}); `mpp_override = {mpp:g}` replaces what files state"
            )


def _sizes(given: Given) -> Iterator[str]:
    """Note patches that cover different areas, since files of different resolutions are cut in their own pixels."""
    rule, manifest = given.manifest.rule, given.manifest
    override = manifest.mpp_override if given.options.mpp_override is None else given.options.mpp_override
    if not isinstance(rule, PatchGrid) or rule.mpp is not None or override is not None or is_packaged(manifest):
        return
    least, most = (min(given.stated), max(given.stated)) if given.stated else (1.0, 1.0)
    if most > SQUARE * least:
        yield (
            f"patches of {rule.size} pixels cover different areas: files state {least:.4g} to {most:.4g} micrometres "
            "per pixel; `mpp` under [rule] takes all patches at one resolution"
        )


def _errata(given: Given) -> Iterator[str]:
    if given.options.errata != "default" and not given.manifest.errata:
        yield f"--errata {given.options.errata} is not used: no errata of this source are known"


def _of_images(count: int, given: Given) -> str:
    return f"{count} of {counted(len(given.images), 'image')}"


def _pixels(given: Given) -> Iterator[str]:
    """Note a `range` that no image needs; the headers are read up to the first image that does."""
    if given.manifest.pixels.range is None:
        return
    if not any(given.source.takes_range(file) for image in given.images for file in image.files):
        yield _keys(["range"], "[pixels]", "no image has samples of more than 8 bits")


def _rule(given: Given) -> Iterator[str]:
    rule, manifest = given.manifest.rule, given.manifest
    if isinstance(rule, Regional) and rule.tissue is None and "tissue_rule" in rule.model_fields_set:
        yield _keys(["tissue_rule"], "[rule]", "no share of tissue is required (`tissue`)")
    if isinstance(rule, Crop) and all(image.label is not None for image in given.images):
        keys = sorted(rule.model_fields_set & {"size", "mpp"})
        if keys:
            yield _keys(keys, "[rule]", "the images are crops already")
    if not manifest.reads_annotations:
        files = {name for image in given.images for name in image.annotations}
        if files:
            yield (
                f"not read: {counted(len(files), 'file')} of annotations, the first {min(files)}: "
                f"the rule {rule.type!r} takes the label of the image"
            )
        if given.options.allow_outside or manifest.allow_outside:
            name = "--allow-outside" if given.options.allow_outside else "`allow_outside`"
            yield f"not used: {name}: the rule {rule.type!r} reads no annotations"


def _image(given: Given) -> Iterator[str]:
    image = given.manifest.image
    if given.options.image(given.manifest).format == "png" and "quality" in image.model_fields_set:
        yield _keys(["quality"], "[image]", "samples are stored as PNG")


def _split(given: Given) -> Iterator[str]:
    """Note unused sets that file names state, images without one, and groups that a policy names without effect."""
    named = given.manifest.shape or (given.manifest.reader and not is_packaged(given.manifest))
    if not named:  # the known sources say in their notes which sets they keep to
        return
    policy = given.manifest.policy(given.options.split)
    stated = [image for image in given.images if image.split is not None]
    if stated and not policy.official:
        yield (
            f"not used: the sets that {counted(len(stated), 'image')} state, the first {stated[0].name} "
            f"({stated[0].split}); `official = true` under [split.{given.options.split}] keeps to them"
        )
    without = [image for image in given.images if image.split is None]
    if stated and without and policy.official and not is_packaged(given.manifest):
        they = "they go to the training set" if policy.share is None else "they are drawn by `share`"
        yield f"{counted(len(without), 'image')} without a set, the first {without[0].name}: {they}"
    if stated and not without and policy.official and policy.share is not None and not is_packaged(given.manifest):
        yield _keys(["share"], f"[split.{given.options.split}]", "each image has a set, which `official = true` keeps")
    groups = {image.group if policy.unit == "group" else image.name for image in given.images}
    absent = sorted(spelt(policy, groups).named().keys() - groups)
    if absent and policy.unit != "scan":
        yield _values(absent, f"named in [split.{given.options.split}] and on no image here")
    if policy.share is None and policy.validation is None and "draw" in policy.model_fields_set:
        yield _keys(["draw"], f"[split.{given.options.split}]", "nothing is drawn without `share`, or a share in `val`")


def _patterns(given: Given) -> Iterator[str]:
    labels = getattr(_shape(given), "LABELS", {})
    others = {name for target, some in labels.items() if target != given.manifest.target for name in some}
    groups = {kind: read - others for kind, read in getattr(_shape(given), "GROUPS", {}).items()}
    kept = set(given.manifest.layout.get("attributes", {}).values()) if given.manifest.shape == "folders" else set()
    for kind, spec in given.manifest.files.items():
        named = re.compile(spec.pattern)
        back = {name for name in named.groupindex if f"(?P={name})" in spec.pattern or f"(?({name})" in spec.pattern}
        unknown = sorted(named.groupindex.keys() - groups.get(kind, named.groupindex.keys()) - back - kept)
        if unknown:
            known = ", ".join(f"(?P<{name}>...)" for name in sorted(groups[kind])) or "none"
            shown = ", ".join(f"(?P<{name}>...)" for name in unknown)
            yield f"not used: {shown} in the pattern of [files.{kind}], which may have {known}"


def _layout(given: Given) -> Iterator[str]:
    shape = _shape(given)
    if shape is None or not hasattr(shape, "idle"):
        return
    for keys, why in shape.idle(given.source):
        used = [key for key in keys if key in given.manifest.layout]
        if used:
            yield _keys(used, "[layout]", why)


def _shape(given: Given) -> object:
    """Return the module of the manifest's shape; None for a source with its own module."""
    module = readers.reader(given.manifest)
    return module if given.manifest.shape and hasattr(module, "FILES") else None


def _keys(keys: list[str], table: str, why: str) -> str:
    return f"not used: {', '.join(f'`{key}`' for key in keys)} under {table}: {why}"


def _values(values: list[str], why: str) -> str:
    more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    return f"not used: {', '.join(repr(cut(value, 60)) for value in values[:SHOWN])}{more}, {why}"
