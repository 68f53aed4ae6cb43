"""Random subsets of the source tasks, and a training on each of them.

A subset contains each task of the shards folder with probability one half. Subset i depends only on the seed and on the
names of these tasks, so estimates for several targets share their runs.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dpconvert.names import plain
from mtrain.config import FitConfig
from mtrain.data.addresses import absolute
from mtrain.runs.run_folder import Run

FOLDER = ".subsets"  # beside the runs; `mtrain runs` does not list them
ALL_UP_TO = 8  # up to this number of sources, all subsets are used
TRIES = 100_000

Subset = tuple[str, ...]


def all_subsets(sources: Sequence[str]) -> list[Subset]:
    """All non-empty subsets, in order of size."""
    ordered = sorted(sources)
    return [one for size in range(1, len(ordered) + 1) for one in itertools.combinations(ordered, size)]


def drawn(tasks: Sequence[str], sources: Sequence[str], count: int, seed: int) -> list[Subset]:
    """`count` distinct subsets of `sources`, or all if there are fewer. tasks: names of all tasks in the folder."""
    if count >= 2 ** len(sources) - 1:
        return all_subsets(sources)
    found: dict[Subset, None] = {}
    for subset in itertools.islice(_stream(tasks, seed), TRIES):
        if subset and set(subset) <= set(sources):
            found[subset] = None
        if len(found) == count:
            break
    return list(found)


def _stream(tasks: Sequence[str], seed: int) -> Iterator[Subset]:
    """Yield subsets of all tasks without end."""
    ordered = sorted(tasks)
    for number in itertools.count():
        words = np.random.Philox(key=np.array([seed, number], dtype=np.uint64)).random_raw(len(ordered))
        yield tuple(name for name, word in zip(ordered, words.tolist(), strict=True) if word >> 63)


def estimated(tasks: Sequence[str], sources: Sequence[str], count: int, seed: int) -> list[Subset]:
    """The subsets to estimate: all if there are few sources, else `count` random ones and the whole pool."""
    if len(sources) <= ALL_UP_TO:
        return all_subsets(sources)
    whole = tuple(sorted(sources))
    return list(dict.fromkeys([*drawn(tasks, sources, count, seed), whole]))


def retraining(run: Run, subset: Subset, shards: Path | str, iterations: int | None = None) -> tuple[Run, FitConfig]:
    """The run that trains on `subset` with the settings of `run`, and its configuration. shards: folder of the tasks.
    iterations: if other than those of `run`; the warm-up keeps its share of them.
    """
    own = run.config()
    joint = tuple(name for name in own.joint if plain(name) in map(plain, subset))
    changes: dict[str, Any] = {"tasks": subset, "leave_out": (), "drop": None, "joint": joint, "validate_every": 0}
    changes |= {"shards": absolute(shards)}
    if iterations is not None:
        changes |= {"iterations": iterations, "warmup": own.warmup * iterations // own.iterations}
    config = FitConfig.model_validate(own.model_dump() | changes)
    digest = hashlib.sha256(json.dumps(config.determining(), sort_keys=True).encode()).hexdigest()
    return Run(run.path.parent / FOLDER / digest[:16]), config
