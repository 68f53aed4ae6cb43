"""Convert a source into a task folder: plan, shards, index, task.json. Each is kept as soon as it is complete.

<out>/<Task>/.work/request.json   the request: options, and digests of manifest and source
<out>/<Task>/.work/stamps         a digest of name, size and times for each file of the source
<out>/<Task>/.work/plan.jsonl     the plan
<out>/<Task>/.work/<shard>.json   the part of the index for a finished shard
<out>/<Task>/train-000000.tar ... the shards
<out>/<Task>/index.parquet
<out>/<Task>/task.json            written last; `.work` is then removed, unless samples were left out
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from dpconvert.card import FILE_NAME, INDEX_NAME, WORK, Failure, ShardCard, TaskCard, load
from dpconvert.errors import OutputError, ReadError, SourceError
from dpconvert.manifest.model import Manifest
from dpconvert.plan import divide, plan
from dpconvert.plan.options import Options
from dpconvert.plan.plan import Plan, PlanRow
from dpconvert.plural import counted
from dpconvert.runtime import processes
from dpconvert.runtime.limits import Limits, reading
from dpconvert.runtime.locks import locked
from dpconvert.runtime.progress import Reporter
from dpconvert.shards import sidefiles
from dpconvert.shards.encode import EncodedSample, Encoder
from dpconvert.shards.finalize import finish, tools
from dpconvert.shards.tar import Entry, Written, replaced, write_shard
from dpconvert.source.files import Source
from dpconvert.source.stamps import Stamps

REPORTED_FAILURES = 10
STAMPS = "stamps"  # in `.work` alone: the times of files are no part of a task
SHOWN = 3  # files that changed


@dataclass(frozen=True)
class ConversionResult:
    """The result of a conversion: the card, and the numbers of shards written by this run and existing before."""

    card: TaskCard
    folder: Path
    made: int
    had: int


def convert(
    manifest: Manifest,
    root: Path,
    out: Path,
    options: Options,
    *,
    workers: processes.Workers,
    overwrite: bool,
    report: Reporter,
    retry_failed: bool = False,
    limits: Limits = processes.DEFAULT,
) -> ConversionResult:
    """Convert one source into `out/<Task>`, resuming an earlier run if there is one.

    retry_failed: retry only the samples that were left out because they could not be read. limits: for each file.

    Raises:
        SourceError, ReadError: the source is not laid out as expected, or some of its images cannot be read.
        OutputError: the folder is in use, holds another conversion, or cannot be written.
    """
    manifest = options.with_targets(manifest)
    source = Source.open(root, options.applied_to(manifest))
    divide.errata(manifest, options.errata)
    request = plan.fingerprint(manifest, source, options)
    manifest = source.manifest
    folder = out / manifest.task
    with locked(
        folder, "another conversion is writing to it", "wait for it, or choose another --out", "choose another --out"
    ):
        if overwrite:
            _clear(folder)
        elif retry_failed:
            options = _reopen(folder, options, request)
            request = plan.fingerprint(manifest, source, options)
        _clear_partial(folder)
        done = _finished(folder, request, source, report)
        if done is not None:
            _tell_changed(source, folder, report)
            return ConversionResult(done, folder, made=0, had=len(done.shards))
        with closing(source), processes.pool(source, workers, limits) as pool:
            chosen = _plan(manifest, source, options, folder, request, pool, report)
            made, had = _shards(source, options, chosen, folder, pool, report)
        _clear_partial(folder)
        card = _finish(source, options, chosen, folder, request)
    return ConversionResult(card, folder, made, had)


def _tell_changed(source: Source, folder: Path, report: Reporter) -> None:
    """Note files that are newer than the task, without a change of names and sizes; a copy of a file is newer too."""
    newer = source.stamps().newer_than(folder / FILE_NAME, source.sizes)
    if newer:
        report.note(
            f"{folder.name}: {counted(len(newer), 'file')} of the source changed or copied after this task was made, "
            f"the first {newer[0]}: if their content changed, --overwrite makes it again"
        )


def _finished(folder: Path, request: dict[str, str], source: Source, report: Reporter) -> TaskCard | None:
    """Return the card of the task if it is complete and matches the request; None if work remains."""
    work = folder / WORK
    if (folder / FILE_NAME).is_file():
        card = load(folder)
        _check_same(folder, request, json.loads(card.request))
        missing = [s.name for s in card.shards if _size(folder / s.name) != s.size]
        if missing:
            raise OutputError(
                f"task.json exists, but {missing[0]} is missing or cut", where=folder, remedy="run with --overwrite"
            )
        if not card.failures:
            shutil.rmtree(work, ignore_errors=True)
        return card
    existing = _existing_request(work)
    if existing is not None:
        changed = _changed(source, folder)
        if existing.get("source") != request["source"] or changed:  # keep unaffected shards
            report.note(
                f"{folder.name}: files of the source changed or copied since this conversion began; it is planned again"
            )
            if changed:
                report.note(f"{folder.name}: changed or copied: {_first(changed)}")
            (work / "plan.jsonl").unlink(missing_ok=True)
        _check_same(folder, request, _with_new_failure_handling(existing, request))
    return None


def _changed(source: Source, folder: Path) -> list[str]:
    """Return the files that changed since an unfinished conversion began; all of them if that is not known."""
    try:
        record = (folder / WORK / STAMPS).read_bytes()
    except FileNotFoundError:
        record = b""
    return source.stamps().changed_since(record, source.sizes)


def _first(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _existing_request(work: Path) -> dict[str, str] | None:
    """Return the request of an unfinished conversion; None if there is none."""
    try:
        return dict(json.loads((work / "request.json").read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        raise OutputError("request.json cannot be read", where=work, remedy="run with --overwrite") from None


def _with_new_failure_handling(existing: dict[str, str], request: dict[str, str]) -> dict[str, str]:
    """Return the existing request with the source files and --skip-failed of the new one, which may both change."""
    skip = {"skip_failed": json.loads(request["options"])["skip_failed"]}
    options = json.dumps(json.loads(existing.get("options", "{}")) | skip, separators=(",", ":"))
    return existing | {"source": request["source"], "options": options}


def _reopen(folder: Path, options: Options, request: dict[str, str]) -> Options:
    """Mark a conversion with failures as unfinished, and drop its failed parts. Returns the options to resume with."""
    work, finished = folder / WORK, (folder / FILE_NAME).is_file()
    existing = json.loads(load(folder).request) if finished else _existing_request(work)
    if existing is None:
        return options
    _check_same(folder, request, _with_new_failure_handling(existing, request))
    if finished and load(folder).failures:
        (folder / FILE_NAME).unlink()
    for path in [*work.glob("*.tar.json"), *work.glob("plan.jsonl")]:
        if _records_failures(path):
            path.unlink()
    return options.model_copy(update={"skip_failed": json.loads(existing["options"])["skip_failed"]})


def _records_failures(path: Path) -> bool:
    """Whether the record of a shard, or the head of a plan, lists failures. Damaged files count as well."""
    with path.open("rb") as file:
        try:
            return bool(json.loads(file.readline())["failures"])
        except (ValueError, KeyError, TypeError):
            return True


def _check_same(folder: Path, request: dict[str, str], existing: dict[str, str]) -> None:
    differ = [name for name in request if request[name] != existing.get(name)]
    if not differ:
        return
    words = {"version": "plan version", "manifest": "manifest", "source": "source files", "options": "options"}
    expected, found = _different_options(request, existing) if "options" in differ else (None, None)
    raise OutputError(
        f"holds a conversion with other {' and '.join(words[name] for name in differ)}",
        where=folder,
        expected=expected,
        found=found,
        remedy="choose another --out, or replace it with --overwrite",
    )


def _different_options(request: dict[str, str], existing: dict[str, str]) -> tuple[str, str]:
    """Return the options that differ between the requests, as '--name value'."""
    one, other = json.loads(request["options"]), json.loads(existing.get("options", "{}"))
    names = [name for name in one if one[name] != other.get(name)]
    return tuple(  # type: ignore[return-value]
        ", ".join(f"--{name.replace('_', '-')} {options.get(name)}" for name in names) for options in (one, other)
    )


def _plan(
    manifest: Manifest,
    source: Source,
    options: Options,
    folder: Path,
    request: dict[str, str],
    workers: processes.Workers,
    report: Reporter,
) -> Plan:
    """Return the plan on disk; make and write it if there is none."""
    path = folder / WORK / "plan.jsonl"
    if path.is_file():
        try:
            with path.open() as file:
                return Plan.from_lines(file)
        except (ValueError, KeyError, TypeError, StopIteration):  # damaged
            report.note(f"{manifest.task}: the existing plan cannot be read; it is made again")
    stamps = source.stamps().record(source.sizes)
    chosen = plan.make(manifest, source, options, workers, report)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(folder / WORK / STAMPS) as file:  # before the request, which makes it a conversion to go on with
        file.write(stamps)
    with replaced(folder / WORK / "request.json") as file:
        file.write(json.dumps(request).encode())
    with replaced(path) as file:
        file.writelines(line.encode() + b"\n" for line in chosen.lines())
    for shard in folder.glob("*.tar"):
        if shard.name not in chosen.shards():
            shard.unlink()
    return chosen


@dataclass(frozen=True)
class _ShardJob:
    """The data that a worker needs to write one shard of a source."""

    rows: list[PlanRow]
    classes: list[str]
    options: Options
    folder: Path


def _shards(
    source: Source, options: Options, chosen: Plan, folder: Path, pool: processes.WorkerPool, report: Reporter
) -> tuple[int, int]:
    """Write the missing shards. Returns the numbers of shards written and existing before."""
    task, shards = source.manifest.task, chosen.shards()
    stamps = source.stamps()
    missing = {name: rows for name, rows in shards.items() if not _is_written(folder, rows, source, stamps, options)}
    had = len(shards) - len(missing)
    if had:
        report.note(f"{task}: {had} of {counted(len(shards), 'shard')} already exist")
    jobs = (_ShardJob(rows, chosen.classes, options, folder) for rows in missing.values())
    failures: list[Failure] = []
    done = len(chosen.rows) - sum(map(len, missing.values()))
    with report.bar(f"{task}: shards", len(chosen.rows), done=done) as advance:
        for count, failed in processes.run(_shard, source, jobs, pool):
            failures += failed
            advance(count)
    if failures and not options.skip_failed:
        first = min(failures, key=lambda failure: failure.key)
        raise SourceError(
            f"{len(failures)} of {counted(len(chosen.rows), 'sample')} cannot be converted, the first: {first.reason}",
            where=source.root,
            remedy=f"{_list_failures(failures, folder, report)} lists them all; repair the files and run again "
            "(finished shards are kept), or leave them out with --skip-failed",
        )
    return len(missing), had


def _list_failures(failures: list[Failure], folder: Path, report: Reporter) -> Path:
    """Report the first failures, and write all of them to a file. Returns its path."""
    failures = sorted(failures, key=lambda failure: failure.key)
    for failure in failures[:REPORTED_FAILURES]:
        report.note(f"failed: {failure.key}: {failure.reason}")
    path = folder / WORK / "failed.json"
    with replaced(path) as file:
        file.write(json.dumps([failure.model_dump() for failure in failures], indent=1).encode())
    return path


def _is_written(folder: Path, rows: list[PlanRow], source: Source, stamps: Stamps, options: Options) -> bool:
    """Whether the shard of these rows exists as this conversion would write it."""
    record = _record(folder, rows[0].shard)
    return record is not None and (options.skip_failed or not record[1]) and record[2] == _basis(rows, source, stamps)


def _shard(source: Source, job: _ShardJob) -> tuple[int, list[Failure]]:
    """Write one shard and its record, unless samples of it fail. Runs in a worker."""
    rows = job.rows
    encoder = Encoder(source.manifest, source, job.classes, job.options.image(source.manifest))
    failures: list[Failure] = []
    basis = _basis(rows, source, source.stamps())  # before the files are read, so that a later change is noticed

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


def _write_record(job: _ShardJob, written: Written, failures: list[Failure], basis: str) -> None:
    body = {
        "shard": written.shard.model_dump(),
        "entries": written.entries,
        "failures": [failure.model_dump() for failure in failures],
        "resolutions": written.resolutions,
        "basis": basis,
    }
    with replaced(
        job.folder / WORK / f"{written.shard.name}.json", durable=False
    ) as file:  # a truncated one is detected
        file.write(json.dumps(body).encode())


def _record(folder: Path, name: str) -> tuple[Written, list[Failure], str] | None:
    """The record of a finished shard: its entries, its failures and its basis; None if the shard is not finished."""
    try:
        body = json.loads((folder / WORK / f"{name}.json").read_bytes())
        entries = [Entry.checked(entry) for entry in body["entries"]]
        written = Written(ShardCard.model_validate(body["shard"]), entries, tuple(body["resolutions"]))
        failures = [Failure.model_validate(failure) for failure in body["failures"]]
        basis = str(body["basis"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None
    return (written, failures, basis) if _size(folder / name) == written.shard.size else None


def _basis(rows: list[PlanRow], source: Source, stamps: Stamps) -> str:
    """Return a digest of all that determines a shard: its rows, the names, sizes and times of files, the tools."""
    files = sorted({name for row in rows for main in _read_for(row) for name in source.slides.files_of(main)})
    rest = [[(name, source.sizes.get(name), stamps.of(name)) for name in files], tools()]
    return hashlib.sha256("\n".join([*(row.line() for row in rows), json.dumps(rest)]).encode()).hexdigest()


def _read_for(row: PlanRow) -> Iterator[str]:
    """Return the files that a sample is made from, with those of its image's annotations if dense targets are kept."""
    yield from row.files
    if row.annotations is not None:
        yield from (*row.annotations.files, *row.annotations.extra.values())


def _finish(source: Source, options: Options, chosen: Plan, folder: Path, request: dict[str, str]) -> TaskCard:
    """Write the index and the card, then remove the working files.

    Raises:
        SourceError: files of the source changed while they were converted.
    """
    used = source.used()
    if changed := [name for name in _changed(source, folder) if name in used]:
        raise SourceError(
            "files of the source changed while they were converted", where=source.root, found=_first(changed),
            remedy="run again when they are complete: what depends on them is made again, all else is kept",
        )  # fmt: skip
    records = [_record(folder, name) for name in chosen.shards()]
    done = [record for record in records if record is not None]
    assert len(done) == len(records), "a shard vanished before the index was written"
    failures = [*chosen.failures, *(failure for _, failed, _ in done for failure in failed)]
    card = finish(source, options, chosen, folder, request, [written for written, _, _ in done], failures)
    if not failures:  # else --retry-failed needs them
        shutil.rmtree(folder / WORK)
    return card


def _clear_partial(folder: Path) -> None:
    """Remove the files that killed processes were writing."""
    for partial in [*folder.glob("*.part"), *(folder / WORK).glob("*.part")]:
        partial.unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    """Remove the files that a conversion wrote, task.json first, and nothing else."""
    (folder / FILE_NAME).unlink(missing_ok=True)
    sidefiles.clear(folder)
    for path in [folder / INDEX_NAME, *folder.glob("*.tar"), *folder.glob("*.part")]:
        path.unlink(missing_ok=True)
    shutil.rmtree(folder / WORK, ignore_errors=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
