"""Labels of samples as an index and the JSON of samples hold them: one class, several classes, or a number."""

from __future__ import annotations

import math
from typing import Any

from dpconvert.card import TaskCard


def column(card: TaskCard) -> str:
    """The name of the label in the index and in the JSON."""
    return {"class": "label", "labels": "labels", "value": "value"}[card.target]


def is_sound(card: TaskCard, label: Any) -> bool:
    """Whether this is a label of the task."""
    if card.target == "value":
        return type(label) is float and math.isfinite(label)
    if card.target == "labels":
        classes = range(len(card.classes))
        return isinstance(label, list) and label == sorted(set(label)) and all(one in classes for one in label)
    return type(label) is int and 0 <= label < len(card.classes)


def classes(card: TaskCard, label: Any) -> list[int]:
    """The classes of a sample; none if it has a number."""
    if card.target == "class":
        return [label]
    return list(label) if card.target == "labels" else []


def in_words(card: TaskCard, label: Any) -> str:
    """A label for people, such as `tumour, stroma` or `3.5 cells`."""
    if card.target == "value":
        return f"{label:g} {card.unit}".rstrip()
    return ", ".join(card.classes[one] for one in classes(card, label)) or "none"
