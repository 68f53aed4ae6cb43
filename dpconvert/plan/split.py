"""Assign groups of records to splits: named groups first, official sets next; the rest is drawn.

The draw is deterministic (it depends only on names), keeps groups whole, follows the requested shares of samples, and
puts every class into every split if the class has enough groups.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from dpconvert import names
from dpconvert.card import SPLITS, Split
from dpconvert.errors import SourceError
from dpconvert.manifest.splits import SplitPolicy
from dpconvert.source.record import hashed

Counts = Mapping[str, int]


@dataclass
class GroupContent:
    """The content of one group: samples per class, and the official splits of its images."""

    classes: Counter[str] = field(default_factory=Counter)
    official: set[Split | None] = field(default_factory=set)


def assign(groups: Mapping[str, GroupContent], policy: SplitPolicy, seed: str) -> dict[str, Split]:
    """Map group -> split. `seed` is the task's name, or the namespace where tasks must agree (`draw = "hashed"`).

    Raises:
        SourceError: the release puts a group in two of its sets, or has a validation set although one is to be drawn.
    """
    assigned = _assigned(groups, policy, seed)
    if policy.validation is None:
        return assigned
    if "val" in assigned.values():
        raise SourceError(
            "the release has a validation set of its own",
            where=min(g for g, s in assigned.items() if s == "val"),
            remedy=f"leave `val = {policy.validation:g}` out of the manifest's [split]",
        )
    parts: dict[Split, float] = {"train": 1 - policy.validation, "val": policy.validation}
    rest = {g: groups[g].classes for g, s in assigned.items() if s == "train" and g not in policy.named()}
    return assigned | _drawn(rest, parts, policy, seed)


def spelt(policy: SplitPolicy, groups: Collection[str]) -> SplitPolicy:
    """Return the policy with named groups as `groups` spell them, where one differs only in case, form or blanks."""
    absent = policy.named().keys() - set(groups)
    if not absent:
        return policy
    free = defaultdict(list)
    for group in sorted(set(groups) - policy.named().keys()):
        free[names.folded(group.strip())].append(group)
    same = {name: free[names.folded(name.strip())] for name in sorted(absent)}
    once = Counter(group for found in same.values() for group in found)
    known = {name: found[0] for name, found in same.items() if len(found) == 1 and once[found[0]] == 1}
    lists = {"train": policy.train, "val": policy.val, "test": policy.test}
    return policy.model_copy(
        update={key: [known.get(name, name) for name in some] for key, some in lists.items() if isinstance(some, list)}
    )


def _assigned(groups: Mapping[str, GroupContent], policy: SplitPolicy, seed: str) -> dict[str, Split]:
    """Assign the named groups, then the official sets, then the rest by the shares."""
    named = policy.named()
    assigned: dict[str, Split] = {group: named[group] for group in groups if group in named}
    if policy.official:
        assigned |= {g: s for g, content in groups.items() if g not in assigned and (s := _official(g, content))}
    rest = {group: content.classes for group, content in groups.items() if group not in assigned}
    if policy.share is None:
        return assigned | dict.fromkeys(rest, "train")
    return assigned | _drawn(rest, dict(zip(SPLITS, policy.share, strict=True)), policy, seed)


def _drawn(
    groups: Mapping[str, Counter[str]], share: Mapping[Split, float], policy: SplitPolicy, seed: str
) -> dict[str, Split]:
    """Draw groups in proportions of `share`, by the method of the policy."""
    if policy.draw == "hashed":
        return {group: set_by_name(group, share, seed) for group in groups}
    return _draw(groups, {split: part for split, part in share.items() if part > 0}, seed)


def _official(group: str, content: GroupContent) -> Split | None:
    if len(content.official) > 1:
        found = ", ".join(sorted(str(s) for s in content.official))
        raise SourceError(
            "one group in several official sets",
            where=group,
            found=found,
            remedy="correct its sets, or draw others: `share` in place of `official` in the manifest's [split]",
        )
    return next(iter(content.official))


def set_by_name(group: str, share: Mapping[Split, float], seed: str) -> Split:
    """Return the split of a number in [0, 1) that is computed only from names."""
    at = hashed("split", seed, group) / 2**64 * sum(share.values())
    chosen: Split = "train"
    for split, part in share.items():
        chosen = split if part > 0 else chosen
        if at < part:
            break
        at -= part
    return chosen


def _draw(groups: Mapping[str, Counter[str]], share: Mapping[Split, float], seed: str) -> dict[str, Split]:
    """Assign large groups first, each to the split that is furthest below its share of the group's classes."""
    groups = dict(sorted(groups.items()))  # sums of fractions differ with their order
    total = dict(sorted(sum(groups.values(), Counter()).items()))
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
    _level(groups, assigned, need)
    _complete(groups, assigned, list(share))
    return assigned


def _level(groups: Mapping[str, Counter[str]], assigned: dict[str, Split], need: dict[Split, dict[str, float]]) -> None:
    """Move groups from the split with the largest surplus to that with the largest deficit, while this helps.

    `need` is the deficit of each split in each class, negative for a surplus.
    """
    while True:
        lacks = {split: sum(classes.values()) for split, classes in need.items()}
        giver, taker = min(lacks, key=lambda s: lacks[s]), max(lacks, key=lambda s: lacks[s])
        most = min(-lacks[giver], lacks[taker]) * 2  # a larger group would leave a split further off than before
        spare = [g for g in groups if assigned[g] == giver and 0 < groups[g].total() < most - 1e-9]
        if not spare:
            return
        group = min(spare, key=lambda g: (_distance(groups[g], need[giver], need[taker]), g))
        assigned[group] = taker
        for label, count in groups[group].items():
            need[giver][label] += count
            need[taker][label] -= count


def _distance(classes: Counter[str], giver: Mapping[str, float], taker: Mapping[str, float]) -> float:
    """Return the increase in distance of both splits from their needs by class when a group moves."""
    after = sum(abs(giver[c] + classes[c]) + abs(taker[c] - classes[c]) for c in giver)
    return after - sum(abs(giver[c]) + abs(taker[c]) for c in giver)


def _complete(groups: Mapping[str, Counter[str]], assigned: dict[str, Split], splits: list[Split]) -> None:
    """Move a group or exchange two, the smallest first, while this brings classes into more splits.

    A class counts if it has at least as many groups as there are splits.
    """
    holders = Counter(label for classes in groups.values() for label in classes)
    held_by = {g: [label for label in classes if holders[label] >= len(splits)] for g, classes in groups.items()}
    wanted = sorted(set().union(*held_by.values())) if held_by else []
    while True:
        held = Counter((assigned[g], label) for g, labels in held_by.items() for label in labels)
        missing = [(split, label) for split in splits for label in wanted if not held[split, label]]
        moves = (move for split, label in missing for move in _moves(held_by, assigned, split, label))
        better = (move for move in moves if _gain(move, held_by, assigned, held) > 0)
        best = min(better, key=lambda m: (len(m), sum(groups[g].total() for g in m), sorted(m)), default=None)
        if best is None:
            return
        assigned.update(best)


def _moves(
    held_by: Mapping[str, list[str]], assigned: Mapping[str, Split], split: Split, label: str
) -> Iterator[dict[str, Split]]:
    """Return every move that brings the class into the split: a group that holds it, or its exchange for another."""
    for group in (g for g in held_by if label in held_by[g]):
        yield {group: split}
        yield from ({group: split, other: assigned[group]} for other in held_by if assigned[other] == split)


def _gain(
    move: Mapping[str, Split],
    held_by: Mapping[str, list[str]],
    assigned: Mapping[str, Split],
    held: Mapping[tuple[Split, str], int],
) -> int:
    """Return the increase in the number of (split, class) pairs after the move."""
    change: Counter[tuple[Split, str]] = Counter()
    for group, split in move.items():
        for label in held_by[group]:
            change[assigned[group], label] -= 1
            change[split, label] += 1
    return sum((held[pair] + n > 0) - (held[pair] > 0) for pair, n in change.items())


def contents(rows: Iterable[tuple[str, str, Split | None]]) -> dict[str, GroupContent]:
    """Return the content of each group from the (group, class, official split) of every sample."""
    groups: dict[str, GroupContent] = defaultdict(GroupContent)
    for group, label, official in rows:
        groups[group].classes[label] += 1
        groups[group].official.add(official)
    return dict(groups)
