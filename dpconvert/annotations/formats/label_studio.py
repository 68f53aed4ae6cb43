"""Label Studio JSON and JSON-MIN: several images, shapes in per cent of their sides.

https://labelstud.io/guide/export. Rectangles and ellipses may be turned (degrees, clockwise; rectangles about their
upper left corner). Of several annotations of a task the first that was not cancelled counts; the others are counted. A
task without any was skipped or not reached, and is not listed; `unanswered` counts them. Predictions are
not annotations: a file with nothing else is refused. JSON-MIN has no ids: there a shape and its labels are recognized
by their place.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dpconvert.annotations import marks
from dpconvert.annotations.formats.label_studio_results import (
    KINDS,
    PARTS,
    RESULT,
    LabelStudioResult,
    aliases,
    file_of,
    image_of,
)
from dpconvert.annotations.label_names import Said
from dpconvert.annotations.listed import ListedImage
from dpconvert.annotations.parsing.json_text import Loose, parsed
from dpconvert.errors import ReadError
from dpconvert.plural import counted
from dpconvert.validation_errors import first_fault

PLACE = ("x", "y", "width", "height", "radiusX", "radiusY", "rotation", "points", "rle")
OWN = {"created_at", "updated_at"}  # texts of JSON-MIN that no annotator chose
ADDRESS = re.compile(r"(?i)^[/\\]|://|\.\w{3,5}$")
PREDICTED = "with predictions of a model alone"
OTHERS = "annotation of another annotator passed over"


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


def parse(data: bytes, name: str) -> list[ListedImage]:
    """Return the images of the file.

    Raises:
        ReadError: The content is not such a file, holds only predictions, or a brush cannot be decoded.
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
    """Return why tasks have no annotations (only predictions, skipped, not reached) -> all names of each image.

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
            files = [file_of(address) for address in (*_addresses(task.data), task.file_upload) if address]
            found[PREDICTED if task.predictions else why].append((*files[:1], *aliases(files)))
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
    listed = image_of([*_addresses(task.data), task.file_upload or ""], answers[0].result, name)
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
        listed = image_of(_addresses(entry), [RESULT.validate_python(one) for one in results], name)
    except ValidationError as error:
        raise ReadError(str(first_fault(error)), where=name) from None
    if not has_shapes:  # in the whole file, else an image without any shows nothing
        marks.pass_over("choices", listed.remarks)
    return replace(listed, labels=tuple(label for field in fields for label in _chosen(entry.get(field), field)))


def _fields(entries: list[dict[str, Any]]) -> list[str]:
    """The fields that may hold choices for whole images: texts that are not addresses, and lists of choices.

    The export writes the data of a task, its `id`, what was chosen, and then the `annotator`. Where the keys stand in
    that order, their place distinguishes the fields of the data from choices; where not, all of them may be choices.
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
    """The choices of a field; one empty choice where there is none, so that the field is still reported."""
    several = value.get("choices") if isinstance(value, dict) else None
    return [Said(str(label), field) for label in (several if isinstance(several, list) else [value or ""])]


def _kind(value: dict[str, Any]) -> str:
    """The kind of a shape by what it consists of; "shape" where it is none that is read."""
    return next((kind for kind, keys in PARTS.items() if value.keys() >= {*keys}), "shape")


def _addresses(data: dict[str, Any]) -> list[str]:
    return [value for value in data.values() if isinstance(value, str)]
