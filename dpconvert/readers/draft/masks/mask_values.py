"""The values or colours of masks, and lines of a manifest that name them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from dpconvert.annotations import mask_pixels
from dpconvert.errors import ReadError
from dpconvert.readers.draft import naming
from dpconvert.readers.draft.survey import Survey
from dpconvert.readers.draft.toml import quoted

LOOKED_AT = 24  # masks whose values are read
FEW = 16  # values of a mask


def values_of(survey: Survey, name: str) -> set[str] | None:
    """The values of a mask, numbers or '#rrggbb', or None if there are more than FEW."""
    data = survey.source.read(name)
    for colours in (False, True):
        try:
            found = np.unique(mask_pixels.read(data, name, colours=colours))
        except ReadError:
            continue
        if len(found) <= FEW:
            return {f"#{value:06x}" if colours else str(value) for value in found.tolist()}
        return None
    return None


def all_values(survey: Survey, masks: list[str]) -> tuple[dict[str, int], list[str]]:
    """Value -> in how many of the masks that were looked at; and what is wrong with these."""
    found: Counter[str] = Counter()
    step = max(1, len(masks) // LOOKED_AT)
    for name in masks[::step]:
        values = values_of(survey, name)
        if values is None:
            return {}, [
                f"{name} holds more than {FEW} values: is it a mask? If its values number objects, state "
                '`objects = "values"` in [layout]; if it was saved as JPEG or smoothed, `threshold` makes two values '
                "of it"
            ]
        found.update(values)
    return {value: found[value] for value in sorted(found, key=naming.natural)}, []


def inverted(survey: Survey, masks: Sequence[str]) -> Iterator[str]:
    """What to ask of masks of two values in which the lower one is enclosed by the higher one, as drawn on white."""
    looked_at = [_border(survey, name) for name in masks[:: max(1, len(masks) // LOOKED_AT)]]
    enclosed = [border for border, every in looked_at if len(every) > 1]
    if len(enclosed) > 1 and all(len(border) == 1 and border != {0} for border in enclosed):
        yield (
            f"Black areas lie on white in the masks, such as {masks[0]}: if black is the object, exchange the names "
            "under `values`; if white is, nothing need change"
        )


def _border(survey: Survey, name: str) -> tuple[set[int], set[int]]:
    """The values at the border of a mask, and all of them."""
    try:
        cells = mask_pixels.read(survey.source.read(name), name, colours=False)
    except ReadError:
        return set(), set()
    edges = (cells[0], cells[-1], cells[:, 0], cells[:, -1])
    return {value for edge in edges for value in edge.tolist()}, {*np.unique(cells).tolist()}


def is_binary(values: Iterable[str]) -> bool:
    """Whether masks hold two values of which one is surely the background."""
    return (len(found := {*values}) == 2 and "0" in found) or found == {"#000000", "#ffffff"}


def default_names(values: Iterable[str]) -> dict[str, str]:
    """Value -> a name of ours, where nothing tells one."""
    every = list(values)
    first = "0" if "0" in every else "#000000" if "#000000" in every else ""
    called = {value: "object" if len(every) == 2 else f"value {number}" for number, value in enumerate(every)}
    return called | ({first: "background"} if first else {})


def value_lines(named: Mapping[str, str], about: str = "names are ours, to be changed") -> Iterator[str]:
    """The table of the values and their names."""
    if not named:
        yield '# values = {0 = "background", 255 = "object"}'
        return
    yield f"[layout.values]  # value or colour of a mask -> class; {about}"
    for value, name in named.items():
        yield f"{quoted(value) if value.startswith('#') else value} = {quoted(name)}"
