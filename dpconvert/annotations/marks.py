"""Marks that outline nothing (rulers, arrows, open lines, text): one list for all formats.

They are passed over and counted; so is a mark of a type that is not known here, unless a file holds nothing else. A
line that ends where it begins is an outline.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dpconvert.annotations.geometry import Annotations, Geometry, polygon
from dpconvert.errors import ReadError, cut

KINDS = {
    "ruler": ("ruler", "measurement", "measure", "linearmeasure", "anglemeasure", "distance", "angle"),
    "arrow": ("arrow",),
    "line": ("line", "polyline", "linestring", "multilinestring", "freehandline"),
    "pointer": ("pointer",),
    "text": ("text", "textbox", "label", "note", "comment"),
}
NAMES = {name: kind for kind, names in KINDS.items() for name in names}
UNKNOWN = "mark of an unknown type passed over: "


def pass_over(kind: str, remarks: Counter[str]) -> None:
    """Count a mark by the format's own name of its type."""
    known = NAMES.get(kind.strip().lower())
    remarks[f"{known} passed over" if known else f"{UNKNOWN}{cut(kind, 40)!r}"] += 1


def enclosed(line: Sequence[tuple[float, float]], remarks: Counter[str]) -> Geometry | None:
    """Return the area inside a line that ends where it begins; any other is passed over and counted."""
    if len(line) < 4 or line[0] != line[-1]:
        pass_over("line", remarks)
        return None
    remarks["closed line read as an outline"] += 1
    return polygon(line, remarks)


def check(found: Annotations, name: str) -> Annotations:
    """Return the annotations of a file unchanged.

    Raises:
        ReadError: The file holds no annotations, only marks of unknown types.
    """
    unknown = [what.removeprefix(UNKNOWN) for what in found.remarks if what.startswith(UNKNOWN)]
    if unknown and not found.items:
        raise ReadError(
            "contains only marks of unknown types",
            where=name,
            expected="polygons, rectangles, ellipses or points",
            found=", ".join(unknown[:3]),
            remedy="export it again with outlines",
        )
    return found
