"""Text files of YOLO: an object of one image per line, the number of its class and fractions of the image's sides.

Four fractions are a box, the centre and the size (https://docs.ultralytics.com/datasets/detect/); six and more are the
corners of an outline (https://docs.ultralytics.com/datasets/segment/), also those of a rotated box. The label is the
number: the names of the classes are in another file. An empty file says that nothing is on the image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import shapely

from dpconvert.annotations.geometry import Annotation, Annotations, Geometry, polygon
from dpconvert.annotations.label_names import resolved
from dpconvert.annotations.programs import YOLO
from dpconvert.errors import ReadError

EXPECTED = "the number of a class, and four or more fractions from 0 to 1"
EMPTY = "empty file of YOLO, whose image shows nothing"


def read(data: bytes, name: str, size: tuple[int, int], known: Collection[str] = ()) -> Annotations:
    """Boxes and outlines labelled by the numbers of their classes, in pixels of an image of `size` (width, height).

    Raises:
        ReadError: a line that is neither a box nor an outline, or of a class that `known` does not have.
    """
    remarks: Counter[str] = Counter()
    items = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        if not (bare := line.strip()):
            continue
        where = f"{name}, line {number}"
        if not YOLO.fullmatch(bare):
            raise ReadError("not a line of YOLO", where=where, expected=EXPECTED, found=repr(bytes(bare[:40])))
        label, *numbers = bare.decode().split()
        shape = _shape([float(text) for text in numbers], size, where, remarks)
        if shape is None or not shape.area:
            remarks["annotation without an outline"] += 1
            continue
        items.append(Annotation(shape, resolved([str(int(label))], known, name), str(number)))
    remarks[EMPTY] += not items and not remarks
    return Annotations(items, +remarks)


def _shape(numbers: Sequence[float], size: tuple[int, int], where: str, remarks: Counter[str]) -> Geometry | None:
    """Return the box or the outline in pixels; None if it has no area."""
    if len(numbers) % 2:
        raise ReadError(
            "a confidence or the key points of a pose beside a box or an outline, which are not read",
            where=where,
            expected="4 numbers of a box, or pairs of an outline",
            found=f"{len(numbers)} numbers",
            remedy="predictions of a model are no annotations; save boxes or outlines without confidence",
        )
    scaled = [value * size[at % 2] for at, value in enumerate(numbers)]
    if len(scaled) == 4:
        x, y, width, height = scaled
        return shapely.box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return polygon(list(zip(scaled[::2], scaled[1::2], strict=True)), remarks)
