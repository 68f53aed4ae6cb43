"""Label Studio JSON and JSON-MIN: several images, shapes in per cent of their sides.

https://labelstud.io/guide/export. Rectangles and ellipses may be turned (degrees, clockwise; rectangles about their
upper left corner). Of several annotations of a task the first that was not cancelled counts; the others are counted. A
task without any was skipped or not reached, and is not listed; `unanswered` counts them. Predictions are no
annotations: a file with nothing else is refused. JSON-MIN has no ids: there a shape and its labels are told by their
place.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import unquote

import shapely
from pydantic import Field, TypeAdapter, ValidationError
from shapely import affinity

from dpconvert.annotations import marks
from dpconvert.annotations.formats.label_studio_brush import brush_outline
from dpconvert.annotations.geometry import Geometry, ellipse, polygon
from dpconvert.annotations.labels import Said
from dpconvert.annotations.listed import ListedImage, ListedShape
from dpconvert.annotations.parsing.json_text import Coordinate, Loose, parsed
from dpconvert.errors import ReadError
from dpconvert.plural import counted
from dpconvert.validation import first_fault

Byte = Annotated[int, Field(ge=0, le=255)]
Side = Annotated[int, Field(gt=0, lt=1_000_000)]
Position = Annotated[list[Coordinate], Field(min_length=2)]
KINDS = ("rectangle", "ellipse", "polygon", "keypoint", "brush")
PLACE = ("x", "y", "width", "height", "radiusX", "radiusY", "rotation", "points", "rle")
PARTS = {
    "ellipse": ("x", "y", "radiusX", "radiusY"),
    "polygon": ("points",),
    "brush": ("rle",),
    "rectangle": ("x", "y", "width", "height"),
    "keypoint": ("x", "y"),
}
UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # what the server puts before the name of an uploaded file
OWN = {"created_at", "updated_at"}  # texts of JSON-MIN that no annotator chose
ADDRESS = re.compile(r"(?i)^[/\\]|://|\.\w{3,5}$")
PREDICTED = "with predictions of a model alone"
OTHERS = "annotation of another annotator passed over"


class Value(Loose):
    x: Coordinate = 0
    y: Coordinate = 0
    width: Coordinate = 0
    height: Coordinate = 0
    across: Coordinate = Field(default=0, alias="radiusX")
    down: Coordinate = Field(default=0, alias="radiusY")
    rotation: Coordinate = 0
    points: list[Position] = []
    rle: list[Byte] = []


class LabelStudioResult(Loose):
    id: str = ""
    type: str = ""
    control: str = Field(default="", alias="from_name")
    width: Side | None = Field(default=None, alias="original_width")
    height: Side | None = Field(default=None, alias="original_height")
    item: int | None = Field(default=None, alias="item_index")
    turned: float | None = Field(default=None, alias="image_rotation")
    value: dict[str, Any] = {}


class Answer(Loose):
    id: int | str = ""
    result: list[LabelStudioResult] = []
    was_cancelled: bool = False


class LabelStudioTask(Loose):
    data: dict[str, Any] = {}
    file_upload: str | None = None
    annotations: list[Answer] | None = None
    completions: list[Answer] | None = None
    predictions: list[Any] | None = None


TASKS: TypeAdapter[LabelStudioTask | list[LabelStudioTask]] = TypeAdapter(LabelStudioTask | list[LabelStudioTask])
MINIMAL: TypeAdapter[list[dict[str, Any]]] = TypeAdapter(list[dict[str, Any]])
RESULT, VALUE = TypeAdapter(LabelStudioResult), TypeAdapter(Value)


def parse(data: bytes, name: str) -> list[ListedImage]:
    """Return the images of the file.

    Raises:
        ReadError: The content is not such a file, holds predictions alone, or a brush cannot be decoded.
    """
    if _is_minimal(data):
        entries = parsed(data, name, MINIMAL)
        fields = _fields(entries)
        return [_minimal(entry, name, fields, has_shapes=b'"original_width"' in data) for entry in entries]
    tasks = parsed(data, name, TASKS)
    tasks = tasks if isinstance(tasks, list) else [tasks]
    listed = [image for task in tasks if (image := _task(task, name)) is not None]
    predicted = sum(bool(task.predictions) for task in tasks)
    if predicted and not listed:
        raise ReadError(
            "holds predictions of a model, and no annotations",
            where=name,
            found=f"predictions of {counted(predicted, 'task')}",
            remedy="let Label Studio make annotations of the predictions, check them there, and export again",
        )
    return listed


def unanswered(data: bytes, name: str) -> dict[str, list[tuple[str, ...]]]:
    """Return why tasks have no annotations (predictions alone, skipped, not reached) -> all names of each image.

    Raises:
        ReadError: The content is not such a file.
    """
    found: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    if _is_minimal(data):
        return found
    tasks = parsed(data, name, TASKS)
    for task in tasks if isinstance(tasks, list) else [tasks]:
        answers = task.annotations or task.completions or []
        if all(one.was_cancelled for one in answers):
            why = "skipped by the annotator" if answers else "not reached"
            files = [_file(address) for address in (*_addresses(task.data), task.file_upload) if address]
            found[PREDICTED if task.predictions else why].append((*files[:1], *_aliases(files)))
    return found


def _is_minimal(data: bytes) -> bool:
    """Whether this is JSON-MIN; also the full JSON of tasks that nobody completed has no shape and no result."""
    if b'"from_name"' in data:
        return False
    return b'"original_width"' in data or not (b'"result"' in data or (b'"data"' in data and b'"annotations"' in data))


def _task(task: LabelStudioTask, name: str) -> ListedImage | None:
    """What the first annotation draws; None for a task that nobody completed."""
    answers = [one for one in task.annotations or task.completions or [] if not one.was_cancelled]
    if not answers:
        return None
    listed = _listed([*_addresses(task.data), task.file_upload or ""], answers[0].result, name)
    listed.remarks.update({OTHERS: len(answers) - 1} if len(answers) > 1 else {})
    return listed


def _minimal(entry: dict[str, Any], name: str, fields: Sequence[str], *, has_shapes: bool) -> ListedImage:
    """Lists of values, without the results around them.

    The kind is in the name of the list of labels. Where that is "labels" alone, or absent, what the shape consists of
    tells it, and the values of one place are one shape.
    """
    results = []
    plain: dict[str, dict[str, Any]] = {}
    for value in (one for listed in entry.values() if isinstance(listed, list) for one in listed):
        if isinstance(value, dict) and "original_width" in value:
            kind = next((key for key in value if key.removesuffix("labels") in KINDS), "")
            if kind:
                results.append(value | {"value": value, "type": kind, "id": ""})
                continue
            place = json.dumps([value.get(key) for key in PLACE])
            result = plain.setdefault(place, value | {"value": {}, "type": _kind(value), "id": ""})
            result["value"] = result["value"] | value
    results += plain.values()
    try:
        listed = _listed(_addresses(entry), [RESULT.validate_python(one) for one in results], name)
    except ValidationError as error:
        raise ReadError(str(first_fault(error)), where=name) from None
    if not has_shapes:  # in the whole file, else an image without any shows nothing
        marks.pass_over("choices", listed.remarks)
    return replace(listed, labels=tuple(label for field in fields for label in _chosen(entry.get(field), field)))


def _fields(entries: list[dict[str, Any]]) -> list[str]:
    """The fields that may hold choices for whole images: texts that are no addresses, and lists of choices.

    The export writes the data of a task, its `id`, what was chosen, and then the `annotator`. Where the keys stand in
    that order, the fields of the data are told from choices by their place; where not, all of them may be choices.
    """
    placed = [_between(list(entry)) for entry in entries]
    ordered = bool(placed) and None not in placed
    choosable = dict.fromkeys(key for entry in entries for key, value in entry.items() if _may_be_chosen(key, value))
    after = {key for keys in placed for key in keys or ()}
    return [key for key in choosable if not ordered or key in after]


def _between(keys: list[str]) -> list[str] | None:
    """The keys of an entry after its id and before its annotator; None if they do not stand in this order."""
    if "id" not in keys or "annotator" not in keys[keys.index("id") :]:
        return None
    return keys[keys.index("id") + 1 : keys.index("annotator")]


def _may_be_chosen(key: str, value: object) -> bool:
    if isinstance(value, dict):
        return isinstance(value.get("choices"), list)
    return isinstance(value, str) and key not in OWN and not ADDRESS.search(value)


def _chosen(value: object, field: str) -> list[str]:
    """The choices of a field; an empty one where there is none, as the field itself is told."""
    several = value.get("choices") if isinstance(value, dict) else None
    return [Said(str(label), field) for label in (several if isinstance(several, list) else [value or ""])]


def _kind(value: dict[str, Any]) -> str:
    """The kind of a shape by what it consists of; "shape" where it is none that is read."""
    return next((kind for kind, keys in PARTS.items() if value.keys() >= {*keys}), "shape")


def _addresses(data: dict[str, Any]) -> list[str]:
    return [value for value in data.values() if isinstance(value, str)]


def _listed(addresses: list[str], results: list[LabelStudioResult], name: str) -> ListedImage:
    remarks: Counter[str] = Counter()
    labels: dict[str, list[str]] = defaultdict(list)
    for result in results:
        labels[result.id] += _labels(result.value)
    drawn, stated = [], None
    for number, result in enumerate(results):
        kind = result.type.removesuffix("labels")
        if kind not in KINDS:
            if kind:  # "labels" alone name a shape of the same id
                marks.pass_over(kind, remarks)
            continue
        if result.item:
            raise ReadError("a task of several images", where=name, remedy="make a task of each image")
        if result.turned:
            raise ReadError(
                f"a shape on an image that was turned by {result.turned:g} degrees",
                where=name,
                remedy="rotate the image itself, and annotate the rotated image",
            )
        if result.width is None or result.height is None:
            raise ReadError(
                "a shape without the size of its image", where=name, expected="original_width, original_height"
            )
        stated = float(result.width), float(result.height)
        shape = _shape(kind, result, stated, remarks, name)
        if shape is not None:
            own = _labels(result.value) or (labels[result.id] if result.id else []) or [""]
            drawn.append(ListedShape(shape, tuple(own), result.id or str(number), ranked=False))
    names = [_file(address) for address in addresses if address]
    shapes = {result.id for result in results if result.type.removesuffix("labels") in KINDS}
    choices = [result for result in results if result.type == "choices" and result.id not in shapes]
    chosen = [(result.value.get("choices"), result.control) for result in choices]
    of_image = tuple(Said(str(label), control) for some, control in chosen if isinstance(some, list) for label in some)
    return ListedImage(names[0] if names else "", stated, drawn, remarks, tuple(_aliases(names)), of_image)


def _labels(value: dict[str, Any]) -> list[str]:
    found = [one for key, one in value.items() if key.endswith("labels") and isinstance(one, list)]
    return [str(label) for listed in found for label in listed]


def _file(address: str) -> str:
    """The file of an address: of a local one what follows `?d=`."""
    return unquote(address.rpartition("?d=")[2].partition("?")[0])


def _aliases(names: list[str]) -> Iterator[str]:
    yield from names[1:]
    for name in names:
        folder, slash, last = name.rpartition("/")
        if UPLOADED.match(last):
            yield f"{folder}{slash}{UPLOADED.sub('', last)}"


def _shape(
    kind: str, result: LabelStudioResult, size: tuple[float, float], remarks: Counter[str], name: str
) -> Geometry | None:
    if lacking := [key for key in PARTS[kind] if key not in result.value]:
        raise ReadError(f"a {kind} without {lacking[0]}", where=name)
    try:
        value = VALUE.validate_python(result.value)
    except ValidationError as error:
        raise ReadError(str(first_fault(error)), where=name) from None
    if kind == "brush":
        return brush_outline(value.rle, (int(size[0]), int(size[1])), name)
    wide, high = size[0] / 100, size[1] / 100
    x, y = value.x * wide, value.y * high
    if kind == "polygon":
        return polygon([(p[0] * wide, p[1] * high) for p in value.points], remarks)
    if kind == "keypoint":
        return shapely.Point(x, y)
    if kind == "ellipse":
        across, down = value.across * wide, value.down * high
        found = ellipse((x - across, y - down, x + across, y + down), remarks)
    else:
        right, bottom = x + value.width * wide, y + value.height * high
        found = polygon([(x, y), (right, y), (right, bottom), (x, bottom)], remarks)
    return found and affinity.rotate(found, value.rotation, origin=(x, y))
