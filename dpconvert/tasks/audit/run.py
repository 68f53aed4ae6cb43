"""The whole audit: every picture is read once, by several processes; what they look like is compared in this one."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpconvert.errors import ShardError
from dpconvert.runtime import processes
from dpconvert.runtime.progress import Reporter
from dpconvert.tasks.audit import features, nearest
from dpconvert.tasks.audit.findings import Audit, Pair, equal, findings
from dpconvert.tasks.audit.prints import Prints, prints
from dpconvert.tasks.audit.samples import Samples, read_samples

Job = tuple[int, Path, NDArray[np.int64], NDArray[np.int64], list[str]]


def audit(
    folders: Sequence[Path],
    *,
    workers: int,
    report: Reporter,
    alike: float = nearest.ALIKE,
    features_in: Path | None = None,
) -> Audit:
    """What finished tasks share that they should not.

    alike: the correlation from which two pictures look the same. features_in: where `mtrain features` wrote some.

    Raises:
        ShardError: a task is unfinished or damaged.
        UsageError: `features_in` holds no features of these tasks.
    """
    samples = read_samples(folders)
    made = _prints(samples, workers, report)
    pairs = {(pair.one, pair.other): pair for pair in _pairs(samples, made, alike, features_in)}
    return findings(samples, pairs.values(), int(made.even.sum()))


def _pairs(samples: Samples, made: Prints, alike: float, features_in: Path | None) -> list[Pair]:
    """From the least sure on: where a pair is found twice, the surest counts."""
    found = [] if features_in is None else list(features.pairs(features_in, samples))
    uneven = np.flatnonzero(~made.even)
    looks, likeness = nearest.pairs(made.waves[uneven], alike=alike)
    for (one, other), r in zip(uneven[looks].tolist(), likeness.tolist(), strict=True):
        found.append(Pair(one, other, "looks", min(r, 1.0)))
    found += equal(made.pixels.view("S16").ravel(), "pixels", samples)
    found += equal(samples.sha256, "file", samples)
    return found


def _prints(samples: Samples, workers: int, report: Reporter) -> Prints:
    made = Prints.empty(len(samples))
    shards = samples.shards()
    jobs = [
        (i, samples.folders[task] / name, samples.offset[of], samples.length[of], list(samples.key[of]))
        for i, (task, name, of) in enumerate(shards)
    ]
    with report.bar("audit", len(samples)) as advance:
        for i, found in processes.run(_shard, None, jobs, workers):
            of = shards[i][2]
            made.put(of, found)
            advance(len(of))
    return made


def _shard(_: None, job: Job) -> tuple[int, Prints]:
    """The prints of one tar's samples: runs in a worker."""
    number, path, offsets, lengths, keys = job
    if not len(offsets):
        return number, Prints.empty(0)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if min(offsets.min(), lengths.min()) < 0 or (offsets + lengths).max() > len(data):
                raise ShardError("shorter than its index says", where=path, remedy="convert it again")
            pictures = [data[o : o + n] for o, n in zip(offsets.tolist(), lengths.tolist(), strict=True)]
    except (OSError, ValueError) as error:
        raise ShardError(f"cannot be read: {error}", where=path, remedy="convert it again") from None
    return number, prints(pictures, [f"{path}: {key}" for key in keys])
