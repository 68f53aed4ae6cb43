"""Pairs of samples in, what they mean out: leaks between splits, links between tasks, pictures of two labels."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dpconvert.plural import counted
from dpconvert.tasks.audit.samples import Samples

Same = Literal["file", "pixels", "looks", "features"]  # from the surest on
WORDS: dict[Same, str] = {
    "file": "of the same bytes",
    "pixels": "of the same pixels",
    "looks": "that look the same",
    "features": "alike to the network",
}
MOST_EQUAL = 100  # samples that are told by all of their pairs


@dataclass(frozen=True)
class Pair:
    """Two samples by their numbers, how they are the same, and the likeness (1 for what is equal)."""

    one: int
    other: int
    same: Same
    likeness: float


@dataclass(frozen=True)
class Link:
    """Two tasks that share pictures or groups; `stated` when their cards call them related."""

    tasks: tuple[str, str]
    pictures: int
    groups: int
    stated: bool


@dataclass(frozen=True)
class Audit:
    """What was found. `splits`, `tasks`, `labels`, `within`: pairs, each sorted from the surest on.

    splits: between two splits of one task. tasks: between two tasks. labels: in one task, equal, of two labels.
    within: the number of pairs inside one split. groups: (task, group, its splits) of groups that a split divides.
    related: sets of tasks to be left out together. even: the number of pictures too even to be compared.
    """

    samples: Samples
    splits: list[Pair]
    tasks: list[Pair]
    labels: list[Pair]
    within: int
    groups: list[tuple[str, str, list[str]]]
    links: list[Link]
    related: list[list[str]]
    even: int

    @property
    def clean(self) -> bool:
        """Whether nothing was found that the cards do not state."""
        return not (self.splits or self.labels or self.groups or any(not link.stated for link in self.links))

    def pair(self, pair: Pair) -> dict[str, Any]:
        """A pair for programs."""
        told = {"same": pair.same, "likeness": round(pair.likeness, 4)}
        return told | {"one": self.told(pair.one), "other": self.told(pair.other)}

    def told(self, sample: int) -> dict[str, Any]:
        """A sample for programs."""
        s = self.samples
        card = s.cards[s.task[sample]]
        values = {"task": card.task, "split": s.split[sample], "key": s.key[sample], "group": s.group[sample]}
        return values | {"label": card.classes[s.label[sample]], "shard": s.shard[sample]}

    def lines(self) -> Iterator[str]:
        """What was found, for a person."""
        yield f"{counted(len(self.samples), 'picture')} of {counted(len(self.samples.cards), 'task')}"
        names = [card.task for card in self.samples.cards]
        for task, name in enumerate(names):
            pairs = [pair for pair in self.splits if self.samples.task[pair.one] == task]
            if pairs:
                kinds = Counter(pair.same for pair in pairs)
                told = ", ".join(f"{kinds[same]} {WORDS[same]}" for same in WORDS if kinds[same])
                yield f"{name}: {counted(len(pairs), 'pair')} between splits: {told}"
            divided = sum(of == name for of, _, _ in self.groups)
            if divided:
                yield f"{name}: {counted(divided, 'group')} in more than one split"
        if self.labels:
            yield f"{counted(len(self.labels), 'pair')} of equal pixels with two labels"
        for link in self.links:
            stated = "related, as stated" if link.stated else "related, which no card states"
            shared = f"{counted(link.pictures, 'picture')} and {counted(link.groups, 'group')}"
            yield f"{' and '.join(link.tasks)}: {shared} in common; {stated}"
        for together in self.related:
            yield f"to be left out together: {', '.join(together)}"
        even = counted(self.even, "picture")
        yield f"within one split: {counted(self.within, 'pair')}; too even to be compared: {even}"
        if self.clean:
            yield "nothing found that the cards do not state"

    def dump(self) -> dict[str, Any]:
        """All of it for programs."""
        return {
            "samples": len(self.samples),
            "clean": self.clean,
            "splits": [self.pair(pair) for pair in self.splits],
            "tasks": [self.pair(pair) for pair in self.tasks],
            "labels": [self.pair(pair) for pair in self.labels],
            "within": self.within,
            "groups": [{"task": t, "group": g, "splits": s} for t, g, s in self.groups],
            "links": [
                {"tasks": list(k.tasks), "pictures": k.pictures, "groups": k.groups, "stated": k.stated}
                for k in self.links
            ],
            "related": self.related,
            "even": self.even,
        }


def findings(samples: Samples, found: Iterable[Pair], even: int) -> Audit:
    """What pairs and groups mean for these tasks."""
    splits, tasks, labels, within = [], [], [], 0
    for pair in sorted(found, key=_surest):
        one, other = pair.one, pair.other
        if samples.task[one] != samples.task[other]:
            tasks.append(pair)
            continue
        if samples.split[one] != samples.split[other]:
            splits.append(pair)
        else:
            within += 1
        if pair.same in ("file", "pixels") and samples.label[one] != samples.label[other]:
            labels.append(pair)
    links = _links(samples, tasks)
    names = [card.task for card in samples.cards]
    return Audit(
        samples, splits, tasks, labels, within, list(_divided(samples)), links, related_sets(names, links), even
    )


def _surest(pair: Pair) -> tuple[int, float, int, int]:
    return list(WORDS).index(pair.same), -pair.likeness, pair.one, pair.other


def equal(values: NDArray[Any], same: Same, samples: Samples) -> Iterator[Pair]:
    """Every pair of samples with one value.

    Of more than MOST_EQUAL, each sample beside the first of every task, split and label: that names every sample that
    leaks, without the square of their number.
    """
    _, back, counts = np.unique(values, return_inverse=True, return_counts=True)
    order = np.argsort(back.ravel(), kind="stable")
    ends = np.cumsum(counts)
    for which in np.flatnonzero(counts > 1):
        members = order[ends[which] - counts[which] : ends[which]]
        yield from (Pair(one, other, same, 1.0) for one, other in _pairs_of(members, samples))


def _pairs_of(members: NDArray[np.intp], samples: Samples) -> Iterator[tuple[int, int]]:
    """Pairs among equal samples, which are in order."""
    numbers = [int(member) for member in members]
    if len(numbers) <= MOST_EQUAL:
        yield from itertools.combinations(numbers, 2)
        return
    firsts: dict[tuple[int, str, int], int] = {}
    for number in numbers:
        cell = int(samples.task[number]), str(samples.split[number]), int(samples.label[number])
        yield from ((first, number) for first in firsts.values())
        firsts.setdefault(cell, number)


def _divided(samples: Samples) -> Iterator[tuple[str, str, list[str]]]:
    for task, card in enumerate(samples.cards):
        of_task = samples.task == task
        homes: dict[str, set[str]] = defaultdict(set)
        for group, split in zip(samples.group[of_task], samples.split[of_task], strict=True):
            homes[group].add(split)
        yield from ((card.task, group, sorted(homes[group])) for group in sorted(homes) if len(homes[group]) > 1)


def _links(samples: Samples, pairs: list[Pair]) -> list[Link]:
    """Tasks that share pictures, groups (whose ids begin with their namespace), or a word in their cards."""
    pictures = Counter(tuple(sorted((int(samples.task[p.one]), int(samples.task[p.other])))) for p in pairs)
    of_task = [set(samples.group[samples.task == task]) for task in range(len(samples.cards))]
    links = []
    for other, card in enumerate(samples.cards):
        for one, before in enumerate(samples.cards[:other]):
            groups = len(of_task[one] & of_task[other])
            stated = card.task in before.related or before.task in card.related
            if groups or pictures[one, other] or stated:
                links.append(Link((before.task, card.task), pictures[one, other], groups, stated))
    return links


def related_sets(names: list[str], links: list[Link]) -> list[list[str]]:
    """The tasks that links join, directly or over others: what leave-one-out must leave out at once."""
    home = {name: {name} for name in names}
    for link in links:
        joined = home[link.tasks[0]] | home[link.tasks[1]]
        home |= dict.fromkeys(joined, joined)
    return [list(tasks) for tasks in sorted({tuple(sorted(tasks)) for tasks in home.values() if len(tasks) > 1})]
