"""What weights were trained on: the sets of each task, which tasks are related to which, and which licences bind.

Runs say it in config.json, files of weights in their header, exports in a file beside the weights. What a training
starts from has seen something too, which the run inherits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from dpconvert.names import plain

TRAINED_ON, RELATED, RESTRICTED = "trained_on", "related", "restricted"
Sets = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Seen:
    """sets: task -> those of its sets that were trained on. related: task -> tasks of which it says that they share its
    slides or annotations; tasks that were not trained on may be among them. restricted: task, or weights that a
    training began from -> its licence, if that does not let everyone share what is made of it.
    """

    sets: Sets = field(default_factory=dict)
    related: Sets = field(default_factory=dict)
    restricted: Sets = field(default_factory=dict)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Seen:
        """What a JSON object says of it; nothing where it says nothing."""
        return cls(*(_names(content.get(key)) for key in (TRAINED_ON, RELATED, RESTRICTED)))

    def json(self) -> dict[str, dict[str, list[str]]]:
        """As `of` reads it."""
        return {
            key: {task: list(names) for task, names in sorted(found.items())}
            for key, found in ((TRAINED_ON, self.sets), (RELATED, self.related), (RESTRICTED, self.restricted))
            if found or key != RESTRICTED
        }

    def __or__(self, other: Seen) -> Seen:
        return Seen(
            _joined(self.sets, other.sets),
            _joined(self.related, other.related),
            _joined(self.restricted, other.restricted),
        )

    def of_task(self, name: str) -> tuple[str, ...]:
        """The sets of a task that were trained on; names count as they do elsewhere."""
        return next((sets for task, sets in self.sets.items() if plain(task) == plain(name)), ())

    def of_relatives(self, name: str, related: tuple[str, ...]) -> Sets:
        """The tasks that were trained on and share slides or annotations with the task called `name`, whose own card
        names `related`. Relations count in both directions and from task to task, as when a task is left out.
        """
        pairs = [(plain(task), plain(other)) for task, others in self.related.items() for other in others]
        pairs += [(plain(name), plain(other)) for other in related]
        kin = [plain(name)]
        for one in kin:  # grows while it is walked
            near = [b if a == one else a for a, b in pairs if one in (a, b)]
            kin += [other for other in dict.fromkeys(near) if other not in kin]
        return {task: sets for task, sets in self.sets.items() if plain(task) in kin[1:] and sets}


class Terms(Protocol):
    """A licence, of data or of weights. open: whether it lets everyone share what is made of them."""

    @property
    def name(self) -> str: ...
    @property
    def open(self) -> bool: ...


def closed(licences: Mapping[str, Terms]) -> Sets:
    """Those of these licences, by task or weights, that do not let everyone share what is made of it."""
    return {name: (licence.name,) for name, licence in licences.items() if not licence.open}


def _names(content: Any) -> Sets:
    return {task: tuple(names) for task, names in content.items()} if isinstance(content, Mapping) else {}


def _joined(one: Sets, other: Sets) -> Sets:
    return {task: tuple(dict.fromkeys((*one.get(task, ()), *other.get(task, ())))) for task in (*one, *other)}
