"""Runs an audit: several processes read every image once, and this process compares the prints."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpconvert.errors import ShardError
from dpconvert.runtime import processes
from dpconvert.runtime.progress import Reporter
from dpconvert.tasks.audit import feature_pairs, nearest
from dpconvert.tasks.audit.findings import Audit, SamplePair, equal, findings
from dpconvert.tasks.audit.prints import Prints, prints
from dpconvert.tasks.audit.samples import AuditedSamples, read_samples

Job = tuple[int, Path, NDArray[np.int64], NDArray[np.int64], list[str]]


def audit(
    folders: Sequence[Path],
    *,
    workers: int,
    report: Reporter,
    alike: float = nearest.ALIKE,
    features_in: Path | None = None,
) -> Audit:
    """Find what finished tasks share but should not.

    alike: minimum correlation of two images that look the same. features_in: a folder of `mtrain features`, or None.

    Raises:
        ShardError: a task is unfinished or damaged.
        UsageError: `features_in` holds no features of these tasks.
    """
    samples = read_samples(folders)
    all_prints = _prints(samples, workers, report)
    pairs = {(pair.one, pair.other): pair for pair in _pairs(samples, all_prints, alike, features_in)}
    return findings(samples, pairs.values(), int(all_prints.even.sum()))


def _pairs(samples: AuditedSamples, all_prints: Prints, alike: float, features_in: Path | None) -> list[SamplePair]:
    """All pairs, the least certain first: of a pair found in several ways, the last one counts."""
    pairs = [] if features_in is None else list(feature_pairs.pairs(features_in, samples))
    uneven = np.flatnonzero(~all_prints.even)
    looks, likeness = nearest.pairs(all_prints.waves[uneven], alike=alike)
    for (one, other), r in zip(uneven[looks].tolist(), likeness.tolist(), strict=True):
        pairs.append(SamplePair(one, other, "looks", min(r, 1.0)))
    pairs += equal(all_prints.pixels.view("S16").ravel(), "pixels", samples)
    pairs += equal(samples.sha256, "file", samples)
    return pairs


def _prints(samples: AuditedSamples, workers: int, report: Reporter) -> Prints:
    result = Prints.empty(len(samples))
    shards = samples.shards()
    jobs = [
        (i, samples.folders[task] / name, samples.offset[rows], samples.length[rows], list(samples.key[rows]))
        for i, (task, name, rows) in enumerate(shards)
    ]
    with report.bar("audit", len(samples)) as advance:
        for i, of_shard in processes.run(_shard, None, jobs, workers):
            rows = shards[i][2]
            result.put(rows, of_shard)
            advance(len(rows))
    return result


def _shard(_: None, job: Job) -> tuple[int, Prints]:
    """The prints of the samples of one tar. Runs in a worker."""
    number, path, offsets, lengths, keys = job
    if not len(offsets):
        return number, Prints.empty(0)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if min(offsets.min(), lengths.min()) < 0 or (offsets + lengths).max() > len(data):
                raise ShardError("shorter than its index states", where=path, remedy="convert the source again")
            images = [data[o : o + n] for o, n in zip(offsets.tolist(), lengths.tolist(), strict=True)]
    except (OSError, ValueError) as error:
        raise ShardError(f"cannot be read: {error}", where=path, remedy="convert the source again") from None
    return number, prints(images, [f"{path}: {key}" for key in keys])
