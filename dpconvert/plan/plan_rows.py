"""The table of a plan: one row per sample, in the order of the shards, as a file keeps it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from dpconvert.card import Failure, Label, Split
from dpconvert.source.record import Box


class AnnotationFiles(NamedTuple):
    """The files of an image's annotations, and further facts from its reader.

    exhaustive: False if these annotations are known to be incomplete, whatever the manifest states.
    """

    files: tuple[str, ...]
    extra: Mapping[str, str]
    exhaustive: bool = True


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One sample of the plan. `box` is in level-0 pixels, None for the whole image; `stored` is None for no resampling.

    annotations: the files of the image's annotations, if dense targets are kept.
    """

    key: str
    split: Split
    shard: str
    label: Label
    group: str
    source_image: str
    files: tuple[str, ...]
    columns: int
    box: Box | None
    stored: tuple[int, int] | None
    attributes: Mapping[str, str]
    annotations: AnnotationFiles | None = None

    def line(self) -> str:
        """Return the values of the fields in order as JSON, without annotations if there are none."""
        fields = [getattr(self, name) for name in self.__slots__]
        return json.dumps(fields if self.annotations is not None else fields[:-1])


@dataclass(frozen=True)
class Plan:
    """All rows in shard order, with notes about them.

    group_kind: what the groups of the images are; empty if the manifest states it.
    """

    classes: list[str]
    rows: list[PlanRow]
    notes: list[str]
    failures: list[Failure]
    group_kind: str = ""

    def digest(self) -> str:
        """Return the sha256 of the content of the plan."""
        hashed, between = hashlib.sha256(), b""
        for line in self.lines():
            hashed.update(between + line.encode())
            between = b"\n"
        return hashed.hexdigest()

    def lines(self) -> Iterator[str]:
        """Return the plan as lines of JSON: a head, then one list per row."""
        failures = [failure.model_dump() for failure in self.failures]
        stated = {"group_kind": self.group_kind} if self.group_kind else {}
        yield json.dumps({"classes": self.classes, "notes": self.notes, "failures": failures, **stated})
        yield from (row.line() for row in self.rows)

    @classmethod
    def from_lines(cls, lines: Iterable[str]) -> Plan:
        """Return the plan that these `lines` describe."""
        values = map(json.loads, lines)
        head = next(values)
        failures = [Failure.model_validate(failure) for failure in head["failures"]]
        return cls(head["classes"], list(map(_row, values)), head["notes"], failures, head.get("group_kind", ""))

    def shards(self) -> dict[str, list[PlanRow]]:
        """Return a mapping in order: shard name -> its rows."""
        shards: dict[str, list[PlanRow]] = {}
        for row in self.rows:
            shards.setdefault(row.shard, []).append(row)
        return shards


def _row(values: Any) -> PlanRow:
    key, split, shard, label, group, image, files, columns, box, stored, attributes, *targets = values
    return PlanRow(
        key,
        split,
        shard,
        label,
        group,
        image,
        tuple(files),
        columns,
        box and Box(*box),
        stored and tuple(stored),
        attributes,
        AnnotationFiles(tuple(targets[0][0]), *targets[0][1:]) if targets else None,
    )
