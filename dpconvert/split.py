"""Records' groups in, a split for each out: named groups first, official sets next, the rest drawn.

Drawing is deterministic (nothing but names decides), keeps groups whole, follows the wanted shares of samples and puts
every class into every split where it has groups enough.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dpconvert.card import SPLITS, Split
from dpconvert.errors import SourceError
from dpconvert.manifest import SplitPolicy
from dpconvert.record import hashed

Counts = Mapping[str, int]


@dataclass
class GroupContent:
    """What one group holds: samples per class, and the official splits of its pictures."""

    classes: Counter[str] = field(default_factory=Counter)
    official: set[Split | None] = field(default_factory=set)


def assign(groups: Mapping[str, GroupContent], policy: SplitPolicy, seed: str) -> dict[str, Split]:
    """Group -> split. `seed` is the task's name, or the namespace where tasks must agree (`draw = "hashed"`).

    Raises:
        SourceError: the release itself has a group in two of its sets.
    """
    named = policy.named()
    assigned: dict[str, Split] = {group: named[group] for group in groups if group in named}
    if policy.official:
        assigned |= {g: s for g, content in groups.items() if g not in assigned and (s := _official(g, content))}
    rest = {group: content.classes for group, content in groups.items() if group not in assigned}
    if policy.share is None:
        return assigned | dict.fromkeys(rest, "train")
    wanted = dict(zip(SPLITS, policy.share, strict=True))
    if policy.draw == "hashed":
        return assigned | {group: _by_name(group, wanted, seed) for group in rest}
    return assigned | _draw(rest, {s: w for s, w in wanted.items() if w > 0}, seed)


def classes_missing(groups: Mapping[str, GroupContent], assigned: Mapping[str, Split]) -> list[tuple[Split, str]]:
    """(split, class) for every class that a non-empty split lacks."""
    have: dict[Split, set[str]] = defaultdict(set)
    for group, split in assigned.items():
        have[split] |= set(groups[group].classes)
    every = set().union(*have.values()) if have else set()
    return [(split, label) for split in SPLITS if split in have for label in sorted(every - have[split])]


def _official(group: str, content: GroupContent) -> Split | None:
    if len(content.official) > 1:
        found = ", ".join(sorted(str(s) for s in content.official))
        raise SourceError("one group in several official sets", where=group, found=found)
    return next(iter(content.official))


def _by_name(group: str, share: Mapping[Split, float], seed: str) -> Split:
    """The split that a number in [0, 1), made of nothing but names, falls into."""
    at = hashed("split", seed, group) / 2**64 * sum(share.values())
    chosen: Split = "train"
    for split, part in share.items():
        chosen = split if part > 0 else chosen
        if at < part:
            break
        at -= part
    return chosen


def _draw(groups: Mapping[str, Counter[str]], share: Mapping[Split, float], seed: str) -> dict[str, Split]:
    """Large groups first, each to the split that is furthest behind its share of the group's classes."""
    total: Counter[str] = sum(groups.values(), Counter())
    whole = sum(share.values())
    need = {split: {c: n * part / whole for c, n in total.items()} for split, part in share.items()}
    target = {split: dict(classes) for split, classes in need.items()}
    assigned: dict[str, Split] = {}
    for group in sorted(groups, key=lambda g: (-groups[g].total(), hashed(seed, g))):
        classes = groups[group]

        def behind(split: Split, classes: Counter[str] = classes) -> float:
            return sum(n * need[split][c] / target[split][c] for c, n in classes.items() if target[split][c])

        best = max(share, key=lambda s: (behind(s), share[s]))
        assigned[group] = best
        for label, count in classes.items():
            need[best][label] -= count
    _complete(groups, assigned, list(share))
    return assigned


def _complete(groups: Mapping[str, Counter[str]], assigned: dict[str, Split], splits: list[Split]) -> None:
    """Move small groups so that every class with as many groups as splits occurs in each of them."""
    for label in sorted(set().union(*groups.values()) if groups else ()):
        holders = [group for group in groups if groups[group][label]]
        if len(holders) < len(splits):
            continue
        for split in splits:
            if any(assigned[g] == split for g in holders):
                continue
            spare = [g for g in holders if _can_leave(g, groups, assigned)]
            if spare:
                assigned[min(spare, key=lambda g: (groups[g].total(), g))] = split


def _can_leave(group: str, groups: Mapping[str, Counter[str]], assigned: Mapping[str, Split]) -> bool:
    """Whether its split keeps every one of the group's classes without it."""
    others = [g for g in groups if g != group and assigned[g] == assigned[group]]
    return all(any(groups[g][label] for g in others) for label in groups[group])


def contents(rows: Iterable[tuple[str, str, Split | None]]) -> dict[str, GroupContent]:
    """(group, class, official split) of every sample -> what each group holds."""
    groups: dict[str, GroupContent] = defaultdict(GroupContent)
    for group, label, official in rows:
        groups[group].classes[label] += 1
        groups[group].official.add(official)
    return dict(groups)
