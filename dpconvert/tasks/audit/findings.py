"""Interprets pairs of samples: leaks between splits, links between tasks, images with two labels."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dpconvert.plural import counted
from dpconvert.tasks.audit.samples import AuditedSamples

Same = Literal["file", "pixels", "looks", "features"]  # the most certain first
WORDS: dict[Same, str] = {
    "file": "with equal bytes",
    "pixels": "with equal pixels",
    "looks": "with similar appearance",
    "features": "with similar features",
}
MOST_EQUAL = 100  # equal samples, up to which all their pairs are listed


@dataclass(frozen=True)
class SamplePair:
    """Two samples by number, the way in which they are the same, and their similarity (1 if equal)."""

    one: int
    other: int
    same: Same
    likeness: float


@dataclass(frozen=True)
class Link:
    """Two tasks that share images or groups; `stated` is true if one of them states that they are related."""

    tasks: tuple[str, str]
    images: int
    groups: int
    stated: bool


@dataclass(frozen=True)
class Audit:
    """The result of an audit. `splits`, `tasks` and `labels` are pairs, the most certain first.

    splits: pairs between two splits of one task. tasks: pairs between two tasks. labels: equal images of one task with
    two labels. within: number of pairs inside one split. groups: (task, group, its splits) for divided groups.
    related: sets of tasks to leave out together. even: number of images without enough structure to be compared.
    """

    samples: AuditedSamples
    splits: list[SamplePair]
    tasks: list[SamplePair]
    labels: list[SamplePair]
    within: int
    groups: list[tuple[str, str, list[str]]]
    links: list[Link]
    related: list[list[str]]
    even: int

    @property
    def clean(self) -> bool:
        """Whether nothing was found that the tasks do not state."""
        return not (self.splits or self.labels or self.groups or any(not link.stated for link in self.links))

    def pair(self, pair: SamplePair) -> dict[str, Any]:
        """A pair as JSON."""
        return {
            "same": pair.same,
            "likeness": round(pair.likeness, 4),
            "one": self.described(pair.one),
            "other": self.described(pair.other),
        }

    def described(self, sample: int) -> dict[str, Any]:
        """A sample as JSON."""
        s = self.samples
        card = s.cards[s.task[sample]]
        values = {"task": card.task, "split": s.split[sample], "key": s.key[sample], "group": s.group[sample]}
        return values | {"label": s.label[sample], "shard": s.shard[sample]}

    def lines(self) -> Iterator[str]:
        """The result as lines to print."""
        yield f"{counted(len(self.samples), 'image')} in {counted(len(self.samples.cards), 'task')}"
        names = [card.task for card in self.samples.cards]
        for task, name in enumerate(names):
            pairs = [pair for pair in self.splits if self.samples.task[pair.one] == task]
            if pairs:
                kinds = Counter(pair.same for pair in pairs)
                details = ", ".join(f"{kinds[same]} {WORDS[same]}" for same in WORDS if kinds[same])
                yield f"{name}: {counted(len(pairs), 'pair')} between splits: {details}"
            divided = sum(of == name for of, _, _ in self.groups)
            if divided:
                yield f"{name}: {counted(divided, 'group')} in more than one split"
        if self.labels:
            yield f"{counted(len(self.labels), 'pair')} with equal pixels but two labels"
        for link in self.links:
            stated = "related, as stated" if link.stated else "related, which neither task states"
            shared = f"{counted(link.images, 'image')} and {counted(link.groups, 'group')}"
            yield f"{' and '.join(link.tasks)}: {shared} in common; {stated}"
        for together in self.related:
            yield f"leave out together: {', '.join(together)}"
        even = counted(self.even, "image")
        yield f"within one split: {counted(self.within, 'pair')}; too uniform to compare: {even}"
        if self.clean:
            yield "nothing found that the tasks do not state"

    def dump(self) -> dict[str, Any]:
        """The result as JSON."""
        return {
            "samples": len(self.samples),
            "clean": self.clean,
            "splits": [self.pair(pair) for pair in self.splits],
            "tasks": [self.pair(pair) for pair in self.tasks],
            "labels": [self.pair(pair) for pair in self.labels],
            "within": self.within,
            "groups": [{"task": t, "group": g, "splits": s} for t, g, s in self.groups],
            "links": [
                {"tasks": list(k.tasks), "pictures": k.images, "groups": k.groups, "stated": k.stated}
                for k in self.links
            ],
            "related": self.related,
            "even": self.even,
        }


def findings(samples: AuditedSamples, pairs: Iterable[SamplePair], even: int) -> Audit:
    """Sort the pairs into leaks, links and label conflicts, and add divided groups."""
    splits, tasks, labels, within = [], [], [], 0
    for pair in sorted(pairs, key=_most_certain_first):
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


def _most_certain_first(pair: SamplePair) -> tuple[int, float, int, int]:
    return list(WORDS).index(pair.same), -pair.likeness, pair.one, pair.other


def equal(values: NDArray[Any], same: Same, samples: AuditedSamples) -> Iterator[SamplePair]:
    """Every pair of samples with equal values.

    If more than MOST_EQUAL samples are equal, each is paired only with the first one of every task, split and label:
    that lists every sample that leaks without listing all pairs.
    """
    _, back, counts = np.unique(values, return_inverse=True, return_counts=True)
    order = np.argsort(back.ravel(), kind="stable")
    ends = np.cumsum(counts)
    for which in np.flatnonzero(counts > 1):
        members = order[ends[which] - counts[which] : ends[which]]
        yield from (SamplePair(one, other, same, 1.0) for one, other in _pairs_of(members, samples))


def _pairs_of(members: NDArray[np.intp], samples: AuditedSamples) -> Iterator[tuple[int, int]]:
    """Pairs among equal samples, which are sorted."""
    numbers = [int(member) for member in members]
    if len(numbers) <= MOST_EQUAL:
        yield from itertools.combinations(numbers, 2)
        return
    firsts: dict[tuple[int, str, str], int] = {}
    for number in numbers:
        cell = int(samples.task[number]), str(samples.split[number]), str(samples.label[number])
        yield from ((first, number) for first in firsts.values())
        firsts.setdefault(cell, number)


def _divided(samples: AuditedSamples) -> Iterator[tuple[str, str, list[str]]]:
    for task, card in enumerate(samples.cards):
        of_task = samples.task == task
        homes: dict[str, set[str]] = defaultdict(set)
        for group, split in zip(samples.group[of_task], samples.split[of_task], strict=True):
            homes[group].add(split)
        yield from ((card.task, group, sorted(homes[group])) for group in sorted(homes) if len(homes[group]) > 1)


def _links(samples: AuditedSamples, pairs: list[SamplePair]) -> list[Link]:
    """Tasks that share images or groups (whose ids begin with their namespace), or that state that they are related."""
    images = Counter(tuple(sorted((int(samples.task[p.one]), int(samples.task[p.other])))) for p in pairs)
    of_task = [set(samples.group[samples.task == task]) for task in range(len(samples.cards))]
    links = []
    for other, card in enumerate(samples.cards):
        for one, before in enumerate(samples.cards[:other]):
            groups = len(of_task[one] & of_task[other])
            stated = card.task in before.related or before.task in card.related
            if groups or images[one, other] or stated:
                links.append(Link((before.task, card.task), images[one, other], groups, stated))
    return links


def related_sets(names: list[str], links: list[Link]) -> list[list[str]]:
    """The sets of tasks connected by links, directly or through others, which leave-one-out must leave out together."""
    home = {name: {name} for name in names}
    for link in links:
        joined = home[link.tasks[0]] | home[link.tasks[1]]
        home |= dict.fromkeys(joined, joined)
    return [list(tasks) for tasks in sorted({tuple(sorted(tasks)) for tasks in home.values() if len(tasks) > 1})]
