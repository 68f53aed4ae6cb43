"""A source in, a finished task folder out: plan, shards, index, task.json, each kept as soon as it is whole.

<out>/<Task>/.work/request.json   what was asked for
<out>/<Task>/.work/plan.jsonl     the plan
<out>/<Task>/.work/<shard>.json   the index part of a shard that is done
<out>/<Task>/train-000000.tar ... the shards
<out>/<Task>/index.parquet
<out>/<Task>/task.json            last; `.work` goes when it is there and nothing was left out
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
from dpconvert.plan import plan
from dpconvert.plan.plan import Options, Plan, Row
from dpconvert.plural import counted
from dpconvert.runtime import processes
from dpconvert.runtime.locks import locked
from dpconvert.runtime.progress import Reporter
from dpconvert.shards import sidefiles
from dpconvert.shards.encode import Encoder, Sample
from dpconvert.shards.finalize import finish, tools
from dpconvert.shards.tar import Entry, Written, replaced, write_shard
from dpconvert.source.files import Source

TOLD = 10  # failures


@dataclass(frozen=True)
class Outcome:
    """What a conversion came to: the card, and how many shards this run made and found made."""

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
) -> Outcome:
    """Convert one source into `out/<Task>`, going on from what an earlier run left there.

    retry_failed: make again what was left out because it could not be read, and nothing else.

    Raises:
        SourceError, ReadError: the source is not what it must be, or some of its pictures cannot be read.
        OutputError: the folder is in use, holds another conversion, or cannot be written.
    """
    source = Source.open(root, options.told(manifest))
    plan.errata(manifest, options.errata)
    asked = plan.request(manifest, source, options)
    manifest = source.manifest
    folder = out / manifest.task
    with locked(
        folder, "another conversion is writing here", "wait for it, or use another --out", "choose another --out"
    ):
        if overwrite:
            _clear(folder)
        elif retry_failed:
            options = _reopened(folder, options, asked)
            asked = plan.request(manifest, source, options)
        for left in [*folder.glob("*.part"), *(folder / WORK).glob("*.part")]:  # by what was killed
            left.unlink(missing_ok=True)
        done = _finished(folder, asked)
        if done is not None:
            return Outcome(done, folder, made=0, had=len(done.shards))
        with closing(source), processes.pool(source, workers) as pool:
            chosen = _plan(manifest, source, options, folder, asked, pool, report)
            made, had = _shards(source, options, chosen, folder, pool, report)
        card = _finish(source, options, chosen, folder, asked)
    return Outcome(card, folder, made, had)


def _finished(folder: Path, asked: dict[str, str]) -> TaskCard | None:
    """The card of a task that is complete and is what was asked for; None when there is work to do."""
    work = folder / WORK
    if (folder / FILE_NAME).is_file():
        card = load(folder)
        _same(folder, asked, json.loads(card.request))
        missing = [s.name for s in card.shards if _size(folder / s.name) != s.size]
        if missing:
            raise OutputError(
                f"task.json is here but {missing[0]} is missing or cut", where=folder, remedy="run with --overwrite"
            )
        if not card.failures:
            shutil.rmtree(work, ignore_errors=True)
        return card
    there = _requested(work)
    if there is not None:
        if there.get("source") != asked["source"]:  # mended meanwhile: plan again, and keep the shards it leaves alone
            (work / "plan.jsonl").unlink(missing_ok=True)
        _same(folder, asked, _but_for_failures(there, asked))
    return None


def _requested(work: Path) -> dict[str, str] | None:
    """What an unfinished conversion was asked for; None when there is none."""
    try:
        return dict(json.loads((work / "request.json").read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        raise OutputError("holds an unreadable request", where=work, remedy="run with --overwrite") from None


def _but_for_failures(there: dict[str, str], asked: dict[str, str]) -> dict[str, str]:
    """The request `there` for the files of now, and with what is now asked about those that cannot be read."""
    skip = {"skip_failed": json.loads(asked["options"])["skip_failed"]}
    chosen = json.dumps(json.loads(there.get("options", "{}")) | skip, separators=(",", ":"))
    return there | {"source": asked["source"], "options": chosen}


def _reopened(folder: Path, options: Options, asked: dict[str, str]) -> Options:
    """Take back that a conversion is complete, and the notes of what failed in it; the options for going on."""
    work, finished = folder / WORK, (folder / FILE_NAME).is_file()
    there = json.loads(load(folder).request) if finished else _requested(work)
    if there is None:
        return options
    _same(folder, asked, _but_for_failures(there, asked))
    if finished and load(folder).failures:
        (folder / FILE_NAME).unlink()
    for path in [*work.glob("*.tar.json"), *work.glob("plan.jsonl")]:
        if _tells_failures(path):
            path.unlink()
    return options.model_copy(update={"skip_failed": json.loads(there["options"])["skip_failed"]})


def _tells_failures(path: Path) -> bool:
    """Whether the note of a shard, or the head of a plan, has failures; damaged ones are to be made again too."""
    with path.open("rb") as file:
        try:
            return bool(json.loads(file.readline())["failures"])
        except (ValueError, KeyError, TypeError):
            return True


def _same(folder: Path, asked: dict[str, str], there: dict[str, str]) -> None:
    differ = [name for name in asked if asked[name] != there.get(name)]
    if not differ:
        return
    words = {"version": "plan version", "manifest": "manifest", "source": "source files", "options": "options"}
    wanted, found = _options_that_differ(asked, there) if "options" in differ else (None, None)
    raise OutputError(
        f"holds a conversion with other {' and '.join(words[name] for name in differ)}",
        where=folder,
        expected=wanted,
        found=found,
        remedy="use another --out, or --overwrite to replace it",
    )


def _options_that_differ(asked: dict[str, str], there: dict[str, str]) -> tuple[str, str]:
    """The options of both that are not equal, as '--name value'."""
    one, other = json.loads(asked["options"]), json.loads(there.get("options", "{}"))
    names = [name for name in one if one[name] != other.get(name)]
    return tuple(  # type: ignore[return-value]
        ", ".join(f"--{name.replace('_', '-')} {options.get(name)}" for name in names) for options in (one, other)
    )


def _plan(
    manifest: Manifest,
    source: Source,
    options: Options,
    folder: Path,
    asked: dict[str, str],
    workers: processes.Workers,
    report: Reporter,
) -> Plan:
    """The plan on disk, made now if it is not there yet."""
    path = folder / WORK / "plan.jsonl"
    if path.is_file():
        try:
            with path.open() as file:
                return Plan.from_lines(file)
        except (ValueError, KeyError, TypeError, StopIteration):  # damaged: the same one is made again
            report.note(f"{manifest.task}: the plan that is there cannot be read, and is made again")
    chosen = plan.make(manifest, source, options, workers, report)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(folder / WORK / "request.json") as file:
        file.write(json.dumps(asked).encode())
    with replaced(path) as file:
        file.writelines(line.encode() + b"\n" for line in chosen.lines())
    for shard in folder.glob("*.tar"):
        if shard.name not in chosen.shards():
            shard.unlink()
    return chosen


@dataclass(frozen=True)
class _Job:
    """What a worker needs to make one shard of a source."""

    rows: list[Row]
    classes: list[str]
    options: Options
    folder: Path


def _shards(
    source: Source, options: Options, chosen: Plan, folder: Path, pool: processes.Pool, report: Reporter
) -> tuple[int, int]:
    """Make the shards that are missing; (made, had)."""
    task, shards = source.manifest.task, chosen.shards()
    missing = {name: rows for name, rows in shards.items() if not _made(folder, rows, source, options)}
    had = len(shards) - len(missing)
    if had:
        report.note(f"{task}: {had} of {counted(len(shards), 'shard')} there already")
    jobs = (_Job(rows, chosen.classes, options, folder) for rows in missing.values())
    failures: list[Failure] = []
    there = len(chosen.rows) - sum(map(len, missing.values()))
    with report.bar(f"{task}: shards", len(chosen.rows), done=there) as advance:
        for count, failed in processes.run(_shard, source, jobs, pool):
            failures += failed
            advance(count)
    if failures and not options.skip_failed:
        first = min(failures, key=lambda failure: failure.key)
        raise SourceError(
            f"{len(failures)} of {counted(len(chosen.rows), 'sample')} could not be made, the first: {first.reason}",
            where=source.root,
            found=f"all of them in {_listed(failures, folder, report)}",
            remedy="mend the files and run again (what is made is kept), or leave them out with --skip-failed",
        )
    return len(missing), had


def _listed(failures: list[Failure], folder: Path, report: Reporter) -> Path:
    """Tell the first failures, and write all of them to a file."""
    failures = sorted(failures, key=lambda failure: failure.key)
    for failure in failures[:TOLD]:
        report.note(f"failed: {failure.key}: {failure.reason}")
    path = folder / WORK / "failed.json"
    with replaced(path) as file:
        file.write(json.dumps([failure.model_dump() for failure in failures], indent=1).encode())
    return path


def _made(folder: Path, rows: list[Row], source: Source, options: Options) -> bool:
    """Whether a shard is there that this conversion would make."""
    noted = _noted(folder, rows[0].shard)
    return noted is not None and (options.skip_failed or not noted[1]) and noted[2] == _basis(rows, source)


def _shard(source: Source, job: _Job) -> tuple[int, list[Failure]]:
    """Make one shard and note it as done, unless samples of it fail: runs in a worker."""
    rows = job.rows
    encoder = Encoder(source.manifest, source, job.classes, job.options.image(source.manifest))
    failures: list[Failure] = []

    def samples() -> Iterator[Sample]:
        yield from _samples(encoder, rows, failures)
        if failures and not job.options.skip_failed:
            raise _IncompleteError

    try:
        written = write_shard(job.folder / rows[0].shard, rows[0].split, samples())
    except _IncompleteError:  # nothing is written, but every one that cannot be made is told
        return len(rows), failures
    _note_written(source, job, written, failures)
    return len(rows), failures


class _IncompleteError(Exception):
    """Some sample of a shard failed, so that the shard is not to be."""


def _samples(encoder: Encoder, rows: list[Row], failures: list[Failure]) -> Iterator[Sample]:
    for row in rows:
        try:
            yield encoder.sample(row)
        except ReadError as error:
            failures.append(Failure(key=row.key, source=row.files[0], reason=encoder.source.reason(error)))


def _note_written(source: Source, job: _Job, written: Written, failures: list[Failure]) -> None:
    body = {
        "shard": written.shard.model_dump(),
        "entries": written.entries,
        "failures": [failure.model_dump() for failure in failures],
        "basis": _basis(job.rows, source),
    }
    with replaced(job.folder / WORK / f"{written.shard.name}.json", durable=False) as file:  # a cut one is seen
        file.write(json.dumps(body).encode())


def _noted(folder: Path, name: str) -> tuple[Written, list[Failure], str] | None:
    """What is noted of a finished shard, and its basis; None when it is not finished."""
    try:
        body = json.loads((folder / WORK / f"{name}.json").read_bytes())
        written = Written(ShardCard.model_validate(body["shard"]), [Entry.checked(entry) for entry in body["entries"]])
        failures = [Failure.model_validate(failure) for failure in body["failures"]]
        basis = str(body["basis"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None
    return (written, failures, basis) if _size(folder / name) == written.shard.size else None


def _basis(rows: list[Row], source: Source) -> str:
    """A digest over what decides a shard: its rows, their files as far as a listing tells them apart, the tools."""
    files = sorted({name for row in rows for main in row.files for name in source.slides.files_of(main)})
    rest = [[(name, source.sizes.get(name)) for name in files], tools()]
    return hashlib.sha256("\n".join([*(row.line() for row in rows), json.dumps(rest)]).encode()).hexdigest()


def _finish(source: Source, options: Options, chosen: Plan, folder: Path, asked: dict[str, str]) -> TaskCard:
    """Index and card, then the working files go."""
    noted = [_noted(folder, name) for name in chosen.shards()]
    done = [part for part in noted if part is not None]
    assert len(done) == len(noted), "a shard vanished while the index was made"
    failures = [*chosen.failures, *(failure for _, failed, _ in done for failure in failed)]
    card = finish(source, options, chosen, folder, asked, [written for written, _, _ in done], failures)
    if not failures:  # else they say what --retry-failed need not make again
        shutil.rmtree(folder / WORK)
    return card


def _clear(folder: Path) -> None:
    """Remove what a conversion wrote, task.json first, and nothing else."""
    (folder / FILE_NAME).unlink(missing_ok=True)
    sidefiles.clear(folder)
    for path in [folder / INDEX_NAME, *folder.glob("*.tar"), *folder.glob("*.part")]:
        path.unlink(missing_ok=True)
    shutil.rmtree(folder / WORK, ignore_errors=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
