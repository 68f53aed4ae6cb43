"""The first error of a pydantic validation in plain words: the only module that translates pydantic's messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is not known here",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a table of keys and values",
    "model_type": "must be a table of keys and values",
    "model_attributes_type": "must be a table of keys and values",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "too_long": "holds too many values: {actual_length}, at most {max_length}",
    "too_short": "holds too few values: {actual_length}, at least {min_length}",
    "literal_error": "must be {expected}",
    "union_tag_invalid": "must be one of {expected_tags}",
    "union_tag_not_found": "needs {discriminator}",
    "string_pattern_mismatch": "must match {pattern}",
    "json_invalid": "not JSON: {error}",
    "value_error": "{error}",
}


@dataclass(frozen=True)
class Fault:
    """place: the path of the key, '' for the whole. what: the fault. found: the value, None for a table."""

    place: str
    what: str
    found: str | None

    def __str__(self) -> str:
        return f"{self.place}: {self.what}" if self.place else self.what


def first_fault(error: ValidationError, model: type[BaseModel] | None = None) -> Fault:
    """Return the first fault of a validation. With `model`, an unknown key is reported with the nearest known one."""
    problems = error.errors(include_url=False)
    problem = problems[0]
    kind = problem["type"]
    context = {
        key: f"{value:g}" if isinstance(value, float) else value for key, value in problem.get("ctx", {}).items()
    }
    what = WORDS[kind].format(**context) if kind in WORDS else problem["msg"][:1].lower() + problem["msg"][1:]
    if kind == "union_tag_invalid":
        what += _near(str(context["tag"]), [tag.strip(" '") for tag in context["expected_tags"].split(",")])
    key, value = str(problem["loc"][-1]) if problem["loc"] else "", problem["input"]
    if kind == "extra_forbidden" and model is not None:
        what += _near(key, sorted(_keys(model, problem["loc"][:-1])), list_all=True)
    if kind == "missing" and isinstance(value, dict):
        what += _near(key, [str(one) for one in value]) or _unknown_beside(problem["loc"], problems, model)
    of_a_flag = kind == "value_error" and isinstance(value, bool)  # what it excludes, the error says
    text = f"'{value}'" if isinstance(value, str) else repr(value)  # the backslashes of a pattern stay single
    shown = str(value).lower() if isinstance(value, bool) else text[:60]
    found = None if of_a_flag or isinstance(value, dict | list) else shown
    found = repr(context["tag"]) if kind == "union_tag_invalid" else found
    return Fault(".".join(str(part) for part in problem["loc"] if part != "[key]"), what, found)


def _unknown_beside(place: tuple[int | str, ...], problems: Sequence[Any], model: type[BaseModel] | None) -> str:
    """Return the keys beside a missing one that are not known, the first with the nearest known one."""
    beside = [one["loc"] for one in problems if one["type"] == "extra_forbidden" and one["loc"][:-1] == place[:-1]]
    if not beside:
        return ""
    near = _near(str(beside[0][-1]), sorted(_keys(model, place[:-1]))) if model is not None else ""
    return f", and not known here: {', '.join(repr(loc[-1]) for loc in beside)}{near}"


def _near(name: str, known: list[str], *, list_all: bool = False) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f" (did you mean {near[0]!r}?)"
    return f" (known: {', '.join(known)})" if list_all and known else ""


def _keys(model: type[BaseModel], place: tuple[int | str, ...]) -> set[str]:
    """Return the keys allowed at a place; for a table of several kinds, those of the kind that its `type` names."""
    models = [model]
    for part in place:
        fields = [one.model_fields[str(part)] for one in models if str(part) in one.model_fields]
        if fields:
            models = [inner for field in fields for inner in _models(field.annotation)]
        else:
            models = [one for one in models if _kind(one) in (None, part)] or models
    return {field.alias or name for one in models for name, field in one.model_fields.items()}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _kind(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("type")
    values = get_args(field.annotation) if field else ()
    return str(values[0]) if values else None
