"""The images and samples that a manifest lists as wrong, and notes on entries that change nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from dpconvert.errors import UsageError
from dpconvert.manifest.catalog import is_packaged
from dpconvert.manifest.model import Erratum, Manifest
from dpconvert.plan.options import Options
from dpconvert.source.record import Box, Record, SourceImage, read_sample_name, sample_name

SHOWN = 3  # names in a note


def wrong_images(manifest: Manifest, options: Options, drops: str) -> list[re.Pattern[str]]:
    """Return the patterns of the selected errata that drop this; they are searched in the names of images."""
    return [re.compile(e.pictures) for e in errata(manifest, options.errata) if e.drops == drops and e.pictures]


def wrong_samples(manifest: Manifest, options: Options) -> set[tuple[str, Box | None]]:
    """Return the samples that errata list by name: (image, frame), with None for a whole image."""
    return {read_sample_name(name) for e in errata(manifest, options.errata) for name in e.samples or ()}


def not_found(manifest: Manifest, options: Options, images: list[SourceImage], found: list[Record]) -> list[str]:
    """Return notes on frames that errata list but that no sample has, although their image exists."""
    here = {image.name for image in images}
    listed = {sample for sample in wrong_samples(manifest, options) if sample[0] in here}
    kept = {(record.source_image.name, record.box) for record in found}
    return absent(listed - kept, set(), "and the frame of no sample")


def absent(samples: set[tuple[str, Box | None]], here: set[str], why: str) -> list[str]:
    """Return a note on samples of images that are not `here`."""
    names = sorted(sample_name(*sample) for sample in samples if sample[0] not in here)
    if not names:
        return []
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"not used: {', '.join(map(repr, names[:SHOWN]))}{more}, listed under [[errata]] {why}"]


def doubtful(manifest: Manifest, options: Options) -> Callable[[str], bool]:
    """Whether an image is known, by its name, to be annotated incompletely."""
    patterns = wrong_images(manifest, options, "negatives")
    return lambda name: any(pattern.search(name) for pattern in patterns)


def errata(manifest: Manifest, chosen: str) -> list[Erratum]:
    """Return the manifest's selected errata. The choice is 'none', 'default', or names separated by commas.

    Raises:
        UsageError: the manifest has no erratum of that name.
    """
    if chosen == "none":
        return []
    if chosen == "default":
        return [erratum for erratum in manifest.errata if erratum.default and _is_about(manifest, erratum)]
    known = {erratum.name for erratum in manifest.errata}
    names = [name.strip() for name in chosen.split(",")]
    for name in names:
        if name not in known:
            have = ", ".join(dict.fromkeys(["none", "default", *(erratum.name for erratum in manifest.errata)]))
            raise UsageError(f"no erratum {name!r}", where=manifest.name, remedy=f"this source has: {have}")
    return [erratum for erratum in manifest.errata if erratum.name in names and _is_about(manifest, erratum)]


def _is_about(manifest: Manifest, erratum: Erratum) -> bool:
    return erratum.task in ("", manifest.task)


def unused_errata(manifest: Manifest, options: Options, images: list[SourceImage]) -> Iterator[str]:
    """Notes on entries about other tasks, and on patterns of a manifest of one's own that no image matches."""
    others = [erratum.task for erratum in manifest.errata if not _is_about(manifest, erratum)]
    if others:
        tasks = ", ".join(map(repr, sorted(set(others))[:SHOWN]))
        yield f"not used: {len(others)} of {len(manifest.errata)} entries of [[errata]], about another task: {tasks}"
    idle = [
        erratum.name
        for erratum in errata(manifest, options.errata)
        if erratum.pictures and not any(re.search(erratum.pictures, image.name) for image in images)
    ]
    if idle and not is_packaged(manifest):
        shown = ", ".join(map(repr, idle[:SHOWN]))
        yield f"not used: `pictures` of {shown} under [[errata]], which match no image here"
