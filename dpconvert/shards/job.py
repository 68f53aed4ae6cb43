"""Makes one shard of a conversion in a worker, with a record from which a later run knows whether it is still valid."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from dpconvert.card import WORK, Failure, ShardCard
from dpconvert.errors import ReadError
from dpconvert.plan.options import Options
from dpconvert.plan.plan_rows import PlanRow
from dpconvert.runtime.atomic import replaced
from dpconvert.runtime.limits import reading
from dpconvert.shards.encode import EncodedSample, Encoder
from dpconvert.shards.finalize import tools
from dpconvert.shards.index import Entry
from dpconvert.shards.tar import Written, write_shard
from dpconvert.source.files import Source
from dpconvert.source.stamps import Stamps


@dataclass(frozen=True)
class ShardJob:
    """The data that a worker needs to write one shard of a source. `group_kind`: see `Plan`."""

    rows: list[PlanRow]
    classes: list[str]
    options: Options
    folder: Path
    group_kind: str = ""


@dataclass(frozen=True)
class Basis:
    """What a shard was made from. request: a digest of rows, names, sizes and tools. stamps: of `Stamps.record`."""

    request: str
    stamps: bytes


def is_written(job: ShardJob, source: Source, stamps: Stamps) -> bool:
    """Whether the shard of this job exists as this conversion would write it."""
    record = record_of(job.folder, job.rows[0].shard)
    if record is None or (record[1] and not job.options.skip_failed):
        return False
    basis, files = record[2], _files(job, source)
    return basis.request == _request(job, source) and not stamps.changed_since(basis.stamps, files)


def make_shard(source: Source, job: ShardJob) -> tuple[int, list[Failure]]:
    """Write one shard and its record, unless samples of it fail. Runs in a worker."""
    rows = job.rows
    manifest = source.manifest.grouped_by(job.group_kind)
    encoder = Encoder(manifest, source, job.classes, job.options.image(manifest))
    failures: list[Failure] = []
    stamps = source.stamps().record(_files(job, source))  # before the files are read, so that a later change is noticed
    basis = Basis(_request(job, source), stamps)

    def samples() -> Iterator[EncodedSample]:
        yield from _samples(encoder, rows, failures)
        if failures and not job.options.skip_failed:
            raise _IncompleteError

    try:
        written = write_shard(job.folder / rows[0].shard, rows[0].split, samples())
    except _IncompleteError:  # nothing is written, but all failures are reported
        return len(rows), failures
    _write_record(job, written, failures, basis)
    return len(rows), failures


class _IncompleteError(Exception):
    """A sample of a shard failed, so the shard is not written."""


def _samples(encoder: Encoder, rows: list[PlanRow], failures: list[Failure]) -> Iterator[EncodedSample]:
    for row in rows:
        try:
            with reading(row.files[0]):
                sample = encoder.sample(row)
            yield sample
        except ReadError as error:
            failures.append(Failure(key=row.key, source=row.files[0], reason=encoder.source.reason(error)))


def _write_record(job: ShardJob, written: Written, failures: list[Failure], basis: Basis) -> None:
    body = {
        "shard": written.shard.model_dump(),
        "entries": written.entries,
        "failures": [failure.model_dump() for failure in failures],
        "resolutions": written.resolutions,
        "basis": basis.request,
        "stamps": basis.stamps.hex(),
    }
    with replaced(
        job.folder / WORK / f"{written.shard.name}.json", durable=False
    ) as file:  # a truncated one is detected
        file.write(json.dumps(body).encode())


def record_of(folder: Path, name: str) -> tuple[Written, list[Failure], Basis] | None:
    """The record of a finished shard: its entries, its failures and its basis; None if the shard is not finished."""
    try:
        body = json.loads((folder / WORK / f"{name}.json").read_bytes())
        entries = [Entry.checked(entry) for entry in body["entries"]]
        written = Written(ShardCard.model_validate(body["shard"]), entries, tuple(body["resolutions"]))
        failures = [Failure.model_validate(failure) for failure in body["failures"]]
        basis = Basis(str(body["basis"]), bytes.fromhex(body["stamps"]))
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None
    return (written, failures, basis) if size_of(folder / name) == written.shard.size else None


def _request(job: ShardJob, source: Source) -> str:
    """Return a digest of all that determines a shard but when its files changed: rows, names and sizes, the tools."""
    rest = [[(name, source.sizes.get(name)) for name in _files(job, source)], tools(), job.group_kind]
    return hashlib.sha256("\n".join([*(row.line() for row in job.rows), json.dumps(rest)]).encode()).hexdigest()


def _files(job: ShardJob, source: Source) -> list[str]:
    """Return all files that a shard is made from."""
    return sorted({name for row in job.rows for main in _read_for(row) for name in source.slides.files_of(main)})


def _read_for(row: PlanRow) -> Iterator[str]:
    """Return the files that a sample is made from, with those of its image's annotations if dense targets are kept."""
    yield from row.files
    if row.annotations is not None:
        yield from (*row.annotations.files, *row.annotations.extra.values())


def size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
