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

import json
import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from dpconvert.card import WORK, Failure, TaskCard
from dpconvert.errors import SourceError
from dpconvert.existing import (
    STAMPS,
    changed_files,
    clear,
    clear_partial,
    finished_card,
    first_of,
    reopen,
    tell_changed,
)
from dpconvert.manifest.model import Manifest
from dpconvert.manifest.unfinished import unfinished
from dpconvert.plan import known_errors, plan
from dpconvert.plan.options import Options
from dpconvert.plan.plan_rows import Plan
from dpconvert.plural import counted
from dpconvert.runtime import processes
from dpconvert.runtime.atomic import replaced
from dpconvert.runtime.limits import Limits
from dpconvert.runtime.locks import locked
from dpconvert.runtime.progress import Reporter
from dpconvert.shards.finalize import finish
from dpconvert.shards.job import ShardJob, is_written, make_shard, record_of
from dpconvert.source.files import Source
from dpconvert.source.written import said

REPORTED_FAILURES = 10


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
        ManifestError: the manifest is a draft that says that it is not ready.
        SourceError, ReadError: the source is not laid out as expected, or some of its images cannot be read.
        OutputError: the folder is in use, holds another conversion, or cannot be written.
    """
    if (fault := unfinished(manifest)) is not None:
        raise fault
    declared = options.with_targets(manifest)  # what the request is about; the source has it with the options applied
    source = Source.open(root, options.applied_to(declared))
    for note in said(source.written):
        report.note(f"{declared.task}: {note}")
    known_errors.errata(declared, options.errata)
    request = plan.fingerprint(declared, source, options)
    folder = out / declared.task
    with locked(
        folder, "another conversion is writing to it", "wait for it, or choose another --out", "choose another --out"
    ):
        if overwrite:
            clear(folder)
            if retry_failed:
                report.note("--retry-failed is not used: --overwrite makes every sample again")
        elif retry_failed:
            options = reopen(folder, options, request, report)
            request = plan.fingerprint(declared, source, options)
        clear_partial(folder)
        done = finished_card(folder, request, source, declared, report)
        if done is not None:
            tell_changed(source, folder, report)
            return ConversionResult(done, folder, made=0, had=len(done.shards))
        with closing(source), processes.pool(source, workers, limits) as pool:
            chosen = _plan(source, options, folder, request, pool, report)
            made, had = _shards(source, options, chosen, folder, pool, report)
        clear_partial(folder)
        card = _finish(source, options, chosen, folder, request)
    return ConversionResult(card, folder, made, had)


def _plan(
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
            report.note(f"{source.manifest.task}: the existing plan cannot be read; it is made again")
    stamps = source.stamps().record(source.sizes)
    chosen = plan.make(source, options, workers, report)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(folder / WORK / STAMPS) as file:  # before the request, which makes it a conversion to resume
        file.write(stamps)
    with replaced(folder / WORK / "request.json") as file:
        file.write(json.dumps(request).encode())
    with replaced(path) as file:
        file.writelines(line.encode() + b"\n" for line in chosen.lines())
    for shard in folder.glob("*.tar"):
        if shard.name not in chosen.shards():
            shard.unlink()
    return chosen


def _shards(
    source: Source, options: Options, chosen: Plan, folder: Path, pool: processes.WorkerPool, report: Reporter
) -> tuple[int, int]:
    """Write the missing shards. Returns the numbers of shards written and existing before."""
    task, shards = source.manifest.task, chosen.shards()
    stamps = source.stamps()
    every = (ShardJob(rows, chosen.classes, options, folder, chosen.group_kind) for rows in shards.values())
    missing = [job for job in every if not is_written(job, source, stamps)]
    had = len(shards) - len(missing)
    if had:
        report.note(f"{task}: {had} of {counted(len(shards), 'shard')} already exist")
    failures: list[Failure] = []
    done = len(chosen.rows) - sum(len(job.rows) for job in missing)
    with report.bar(f"{task}: shards", len(chosen.rows), done=done) as advance:
        for count, failed in processes.run(make_shard, source, missing, pool):
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


def _finish(source: Source, options: Options, chosen: Plan, folder: Path, request: dict[str, str]) -> TaskCard:
    """Write the index and the card, then remove the working files.

    Raises:
        SourceError: files of the source changed while they were converted.
    """
    used = source.used()
    if changed := [name for name in changed_files(source, folder) if name in used]:
        raise SourceError(
            "files of the source changed while they were converted",
            where=source.root,
            found=first_of(changed),
            remedy="run again when they are complete: what depends on them is made again, all else is kept",
        )
    records = [record_of(folder, name) for name in chosen.shards()]
    done = [record for record in records if record is not None]
    assert len(done) == len(records), "a shard vanished before the index was written"
    failures = [*chosen.failures, *(failure for _, failed, _ in done for failure in failed)]
    card = finish(source, options, chosen, folder, request, [written for written, _, _ in done], failures)
    if not failures:  # else --retry-failed needs them
        shutil.rmtree(folder / WORK)
    return card
