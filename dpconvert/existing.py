"""What an earlier run left in the folder of a task: a finished task, one to resume, or one of other options."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from dpconvert.card import FILE_NAME, INDEX_NAME, WORK, TaskCard, load
from dpconvert.errors import OutputError
from dpconvert.manifest.model import Manifest
from dpconvert.plan.options import Options
from dpconvert.plural import counted
from dpconvert.runtime.progress import Reporter
from dpconvert.shards import sidefiles
from dpconvert.shards.job import size_of
from dpconvert.shards.sidefiles import energon
from dpconvert.source.files import Source

STAMPS = "stamps"  # only in `.work`: the times of files are not part of a task
SHOWN = 3  # files that changed
WORDS = "title", "licence", "citation"  # of a manifest, which only the card repeats


def tell_changed(source: Source, folder: Path, report: Reporter) -> None:
    """Note files that are newer than the task, without a change of names and sizes; a copy of a file is newer too."""
    newer = source.stamps().newer_than(folder / FILE_NAME, source.sizes)
    if newer:
        report.note(
            f"{folder.name}: {counted(len(newer), 'file')} of the source changed or copied after this task was made, "
            f"the first {newer[0]}: if their content changed, --overwrite makes it again"
        )


def finished_card(
    folder: Path, request: dict[str, str], source: Source, manifest: Manifest, report: Reporter
) -> TaskCard | None:
    """Return the card of the task if it is complete and matches the request; None if work remains.

    manifest: the one that the request is about.
    """
    work = folder / WORK
    if (folder / FILE_NAME).is_file():
        card = load(folder)
        of_card = json.loads(card.request)
        _check_words(folder, request, of_card, manifest, card)
        _check_same(folder, request, of_card)
        missing = [s.name for s in card.shards if size_of(folder / s.name) != s.size]
        if missing:
            raise OutputError(
                f"task.json exists, but {missing[0]} is missing or cut", where=folder, remedy="run with --overwrite"
            )
        if not card.failures:
            shutil.rmtree(work, ignore_errors=True)
        return card
    existing = _existing_request(work)
    if existing is not None:
        changed = changed_files(source, folder)
        if existing.get("source") != request["source"] or changed:  # keep unaffected shards
            report.note(
                f"{folder.name}: files of the source changed or copied since this conversion began; it is planned again"
            )
            if changed:
                report.note(f"{folder.name}: changed or copied: {first_of(changed)}")
            (work / "plan.jsonl").unlink(missing_ok=True)
        _check_same(folder, request, _with_new_failure_handling(existing, request))
    return None


def changed_files(source: Source, folder: Path) -> list[str]:
    """Return the files that changed since an unfinished conversion began; all of them if that is not known."""
    try:
        record = (folder / WORK / STAMPS).read_bytes()
    except FileNotFoundError:
        record = b""
    return source.stamps().changed_since(record, source.sizes)


def first_of(names: list[str]) -> str:
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


def reopen(folder: Path, options: Options, request: dict[str, str], report: Reporter) -> Options:
    """Mark a conversion with failures as unfinished, and drop its failed parts. Returns the options to resume with."""
    work, finished = folder / WORK, (folder / FILE_NAME).is_file()
    existing = json.loads(load(folder).request) if finished else _existing_request(work)
    if existing is None:
        report.note("--retry-failed is not used: nothing was converted before")
        return options
    _check_same(folder, request, _with_new_failure_handling(existing, request))
    if finished and load(folder).failures:
        (folder / FILE_NAME).unlink()
    failed = [path for path in (*work.glob("*.tar.json"), *work.glob("plan.jsonl")) if _records_failures(path)]
    for path in failed:
        path.unlink()
    if not failed:
        report.note("--retry-failed is not used: nothing was left out")
    return options.model_copy(update={"skip_failed": json.loads(existing["options"])["skip_failed"]})


def _records_failures(path: Path) -> bool:
    """Whether the record of a shard, or the head of a plan, lists failures. Damaged files count as well."""
    with path.open("rb") as file:
        try:
            return bool(json.loads(file.readline())["failures"])
        except (ValueError, KeyError, TypeError):
            return True


def _check_words(
    folder: Path, request: dict[str, str], existing: dict[str, str], manifest: Manifest, card: TaskCard
) -> None:
    """Refuse a manifest that differs from that of the task in words only, on which no sample depends."""
    words = {name: getattr(card, name) for name in WORDS if getattr(card, name) != getattr(manifest, name)}
    before = manifest.model_copy(update=words).digest
    if words and {**request, "manifest": before} == {name: existing.get(name) for name in request}:
        changed = " and ".join(words)
        raise OutputError(
            f"holds the same samples under another {changed}, the only difference between the manifests",
            where=folder,
            remedy=f"keep the shards as they are, or replace them, to state the new {changed}, with --overwrite",
        )


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
    """Return the options that differ between the requests, as '--name value', or 'no --name' where one is not given."""
    one, other = json.loads(request["options"]), json.loads(existing.get("options", "{}"))
    names = [name for name in one | other if one.get(name) != other.get(name)]  # unused ones may be absent
    return tuple(  # type: ignore[return-value]
        ", ".join(_typed(name, options.get(name)) for name in names) for options in (one, other)
    )


def _typed(name: str, value: Any) -> str:
    option = f"--{name.replace('_', '-')}"
    if value is None or isinstance(value, bool):
        return option if value else f"no {option}"
    return f"{option} {value}"


def clear_partial(folder: Path) -> None:
    """Remove the files that killed processes were writing."""
    for written in (folder, folder / WORK, folder / energon.FOLDER):
        for partial in written.glob("*.part"):
            partial.unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Remove the files that a conversion wrote, task.json first, and nothing else."""
    (folder / FILE_NAME).unlink(missing_ok=True)
    sidefiles.clear(folder)
    for path in [folder / INDEX_NAME, *folder.glob("*.tar"), *folder.glob("*.part")]:
        path.unlink(missing_ok=True)
    shutil.rmtree(folder / WORK, ignore_errors=True)
