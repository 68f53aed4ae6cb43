"""`dpconvert init`: drafts a manifest for a folder of files."""

from __future__ import annotations

import dataclasses
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dpconvert.cli.options import PATH, with_shape
from dpconvert.cli.sources import print_examples, print_findings
from dpconvert.errors import OutputError
from dpconvert.manifest.roots import UNDESCRIBED, check_folder
from dpconvert.names import escaped, readable, unaccented
from dpconvert.plural import counted
from dpconvert.runtime.terminal import JSON, QUIET, document, say, tell

if TYPE_CHECKING:
    from dpconvert.plan.check import Findings
    from dpconvert.readers.draft import Drafted


@click.command()
@click.argument("folder", type=PATH, metavar="DIR")
@click.option("--out", type=PATH, metavar="FILE", help="Manifest to write.  [default: DIR's name.toml, in this folder]")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@JSON
@QUIET
def init(folder: Path, out: Path | None, overwrite: bool, as_json: bool, quiet: bool) -> None:
    """Draft a manifest for a folder of images or slides.

    Looks at the files, writes a manifest with comments, and checks it. It does not guess where the files can be read in
    several ways: the manifest and stderr then say what to fill in, and the exit status is 1.

    \b
    Example: dpconvert init cells/
             dpconvert init cells/ --out my.toml
    """
    check_folder(folder, UNDESCRIBED)  # before what takes long to import
    from dpconvert.readers.draft import draft
    from dpconvert.runtime.progress import Reporter

    path = out or Path(f"{_file_name(folder)}.toml")
    if path.suffix.lower() != ".toml":
        raise OutputError("a manifest's name must end in .toml", where=path)
    if path.exists() and not overwrite:
        raise OutputError("exists already", where=path, remedy="choose another --out, or --overwrite to replace it")
    drafted = draft(folder)
    try:
        path.write_text(drafted.text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", where=path, remedy="choose another --out") from None
    findings = _checked(path, folder, Reporter(quiet=quiet or as_json))
    ready = not findings.problems and not drafted.draft.questions
    if as_json:
        content = {"shape": drafted.draft.shape, "task": drafted.task, "questions": list(drafted.draft.questions)}
        document({"manifest": str(path), "ready": ready, **content, "check": dataclasses.asdict(findings)})
    else:
        _print(path, folder, drafted, findings, ready=ready)
    if not ready:
        sys.exit(1)


def _file_name(folder: Path) -> str:
    name = unaccented(readable(escaped(folder.resolve().name)))
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "manifest"


def _checked(path: Path, folder: Path, report: object) -> Findings:
    """What `dpconvert check` finds in the manifest that was written."""
    from dpconvert.errors import UserError
    from dpconvert.manifest.catalog import load
    from dpconvert.manifest.unfinished import unfinished
    from dpconvert.plan.check import Findings, check
    from dpconvert.runtime.progress import Reporter
    from dpconvert.source.files import Source

    assert isinstance(report, Reporter)
    try:
        source = Source.open(folder, with_shape(load(path)))
    except UserError as error:
        return Findings(problems=[str(error)])
    findings = check(source, report=report)
    asked = str(unfinished(source.manifest))  # which the questions say at length
    return dataclasses.replace(findings, problems=[one for one in findings.problems if one != asked])


def _print(path: Path, folder: Path, drafted: Drafted, findings: Findings, *, ready: bool) -> None:
    from dpconvert.manifest.catalog import load
    from dpconvert.readers.draft.toml import reasons

    draft = drafted.draft
    tell(f"{path}: task {drafted.task}, shape {draft.shape}")
    for remark in draft.remarks:
        tell(f"note: {remark}")
    for reason in reasons(draft):
        tell(f"group: {reason}")
    given = f"{shlex.quote(str(path))} --source {shlex.quote(str(folder))}"
    if ready:
        print_findings(findings, load(path))
        tell("")
        tell(f"next: dpconvert check {given}")
        tell(f"then: dpconvert {given} --out shards/")
        return
    print_examples(findings)
    for question in draft.questions:
        say(f"unclear: {question}", bold=True)
    for problem in findings.problems:
        say(f"problem: {problem}", bold=True)
    left = counted(len(draft.questions), "thing") + " to fill in, see its comments"
    what = left if draft.questions else "conversion would fail"
    say(f"dpconvert: error: {path}: {what}; then: dpconvert check {given}", bold=True)
