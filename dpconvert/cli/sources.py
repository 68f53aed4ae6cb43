"""The commands about sources: `list`, `show`, `check`, and `fake`, which draws one."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpconvert.cli.options import ALLOW_OUTSIDE, DENSE, FOLDER, MPP, MPP_OVERRIDE, SOURCE, SPLIT, with_shape
from dpconvert.manifest.roots import existing_root
from dpconvert.plural import counted
from dpconvert.runtime.terminal import JSON, QUIET, document, say, table, tell

if TYPE_CHECKING:
    from dpconvert.manifest.files import FileKind
    from dpconvert.manifest.model import Manifest
    from dpconvert.plan.check import Findings
    from dpconvert.source.files import Source


@click.command("list")
@JSON
def list_sources(as_json: bool) -> None:
    """List the known sources.

    \b
    Example: dpconvert list
    """
    from dpconvert.manifest.catalog import known, load

    manifests = [load(path) for path in known().values()]
    if as_json:
        document([{"name": m.name, "task": m.task, "kind": m.kind, "classes": m.classes} for m in manifests])
        return
    table(
        ["source", "task", "kind", "classes", "samples", "licence"],
        [[m.name, m.task, m.kind, m.num_classes or "", _samples(m) or "", m.licence.name] for m in manifests],
        whole=0,
    )


def _samples(manifest: Manifest) -> int | None:
    """The number that a complete release gives where it is known, else the paper's."""
    expected, paper = manifest.expected, manifest.paper.total if manifest.paper else None
    differs = paper is not None and expected.total != paper
    known = expected.total and (differs or "total" not in expected.reasons)
    return expected.total if known else paper


@click.command()
@click.argument("source")
@JSON
def show(source: str, as_json: bool) -> None:
    """Describe a source: classes, counts, licence, where to get it, and its layout.

    \b
    Example: dpconvert show camelyon16
    """
    from dpconvert.manifest.catalog import find

    manifest = with_shape(find(source))
    if as_json:
        document(manifest.model_dump(mode="json", exclude={"path"}), indent=1)
        return
    for line in "\n".join(_description(manifest)).split("\n"):
        tell(line)


def _description(manifest: Manifest) -> list[str]:
    lines = [f"{manifest.name} -> {manifest.task}: {manifest.title}", ""]
    facts = {
        "kind": manifest.kind,
        "classes": ", ".join(f"{i} {name}" for i, name in enumerate(manifest.classes)) or "taken from the files",
        "organ, stain": ", ".join(filter(None, [manifest.organ, manifest.stain])),
        "resolution": f"{manifest.mpp} um/px" if manifest.mpp else "",
        "rule": _rule(manifest),
        "dense targets": _targets(manifest),
        "group": f"{_groups(manifest)} (ids begin with {manifest.namespace}:)",
        "related tasks": ", ".join(manifest.related),
        "licence": ", ".join(filter(None, [manifest.licence.name, manifest.licence.url, manifest.licence.note])),
        "citation": manifest.citation,
    }
    lines += [f"{name + ':':15}{value}" for name, value in facts.items() if value]
    if manifest.paper:
        p = manifest.paper
        lines.append(f"{'the paper:':15}{counted(p.total, 'image')}: train {p.train}, val {p.val}, test {p.test}")
    for name, policy in manifest.split.items():
        lines.append(f"{'split ' + name + ':':15}{policy.note or 'by ' + _groups(manifest)}")
    if manifest.obtain.url or manifest.obtain.text.strip() or manifest.obtain.archives:
        lines += ["", f"get it: {manifest.obtain.url}".rstrip(), *filter(None, [manifest.obtain.text.strip()])]
    for archive in manifest.obtain.archives:
        lines.append("  " + "  ".join(filter(None, [archive.name, archive.url, archive.digest])))
    lines += ["", "expected files:"]
    for key, kind in manifest.files.items():
        count = f"{kind.expected} " if kind.expected else ""
        lines.append(
            f"  {count}{_what(key, kind)}, " + (f"like {kind.example}" if kind.example else f"named {kind.pattern}")
        )
    for erratum in manifest.errata:
        lines.append(
            f"erratum {erratum.name}{'' if erratum.default else ' (off)'}: {erratum.reason} [{erratum.citation}]"
        )
    return lines + [f"note: {note}" for note in manifest.notes]


def _targets(manifest: Manifest) -> str:
    """'masks (no, yes), with --dense': what samples keep beside their label."""
    if manifest.dense is None:
        return ""
    kept = " and ".join(f"{kind} ({', '.join(of.classes)})" for kind, of in manifest.dense.kinds.items())
    return f"{kept}, with --dense" if manifest.dense.optional else kept


def _rule(manifest: Manifest) -> str:
    """'area: size 768, ...': the settings that differ from their defaults."""
    settings = manifest.rule.model_dump(exclude_defaults=True, exclude={"type"})
    values = {name: ", ".join(value) if isinstance(value, list) else value for name, value in settings.items()}
    return f"{manifest.rule.type}: {'; '.join(f'{k} {v}' for k, v in values.items())}".removesuffix(": ")


@click.command()
@click.argument("source")
@SOURCE
@SPLIT
@MPP
@MPP_OVERRIDE
@ALLOW_OUTSIDE
@DENSE
@JSON
@QUIET
def check(source: str, folder: Path | None, as_json: bool, quiet: bool, **options: Any) -> None:
    """Check a source before it is converted: files, labels, classes, splits.

    Reads names, tables, annotations and masks, but no images. Shows ten files with what was taken out of their names.
    The exit status is 1 if the conversion would fail, or if files of the release are missing.

    \b
    Example: dpconvert check camelyon16 --source /data/camelyon16
             dpconvert check my.toml --source DIR
    """
    from dpconvert.manifest.catalog import find

    manifest = find(source)
    root = existing_root(manifest, folder)  # before what takes long to import
    from dpconvert.plan.check import check as examine
    from dpconvert.plan.options import Options
    from dpconvert.runtime.progress import Reporter
    from dpconvert.source.files import Source

    chosen = Options(**options)
    manifest = chosen.applied_to(with_shape(manifest))
    files = Source.open(root, manifest)
    rows, missing = _files(files)
    findings = examine(files, chosen, Reporter(quiet=quiet or as_json))
    if as_json:
        names = ("what", "found", "expected", "state", "example")
        document({"files": [dict(zip(names, row, strict=True)) for row in rows], **dataclasses.asdict(findings)})
    else:
        tell(f"{files.root}: {counted(len(files.sizes), 'file')}")
        table(["what", "found", "expected", "", "like"], rows)
        print_findings(findings, manifest)
    if missing and not findings.problems:
        say("files of the release are missing (see the table); the existing ones would be converted", bold=True)
    if missing or findings.problems:
        sys.exit(1)


def _what(name: str, kind: FileKind) -> str:
    """What a kind of files is called: as the manifest says, else by its key."""
    return kind.what if "what" in kind.model_fields_set else name


def _files(files: Source) -> tuple[list[list[Any]], bool]:
    """A row for each kind of file and each kind that no pattern matches; whether some are missing."""
    from dpconvert.source import unused

    rows, missing = [], False
    for name, kind in files.manifest.files.items():
        found = len(files.match(name))
        short = found < (kind.expected or 1) and not kind.optional
        missing |= short
        rows.append(
            [_what(name, kind), found, kind.expected or "", "missing" if short else "", kind.example or kind.pattern]
        )
    rows += [[f"not matched: {ending}", len(some), "", "", some[0]] for ending, some in unused.groups(files).items()]
    return rows, missing


def print_examples(findings: Findings) -> None:
    """Ten files, with what was taken out of their names."""
    if findings.examples:
        tell("")
        rows = [[one.file, one.name, one.group, one.label, one.split] for one in findings.examples]
        table(["file", "name", "group", "class", "split"], rows)


def print_findings(findings: Findings, manifest: Manifest) -> None:
    """Ten files, the samples by class and split, then what a person should know; problems on stderr."""
    print_examples(findings)
    if findings.counts:
        tell("")
        sizes = findings.samples
        of_classes = {split: counts if findings.classes else [] for split, counts in findings.counts.items()}
        columns = [[*counts, sizes.get(split, sum(counts))] for split, counts in of_classes.items()]
        counts = zip([*findings.classes, _unit(manifest)], *columns, strict=True)
        table(["class", *findings.counts], [list(row) for row in counts])
    tell("")
    for note in dict.fromkeys(findings.notes):
        tell(f"note: {note}")
    for warning in findings.warnings:
        tell(f"warning: {warning}")
    for problem in findings.problems:
        say(f"problem: {problem}", bold=True)
    if not findings.problems:
        images, kind = counted(findings.images, "image"), findings.group_kind
        groups = counted(findings.groups, "group" if kind == "image" else kind)
        of_groups = "" if findings.groups == findings.images and kind == "image" else f" of {groups}"
        tell(f"no problem found in {images}{of_groups}; pixels were not read")


def _groups(manifest: Manifest) -> str:
    """What the groups of a source are."""
    return manifest.group.kind or "group, where file names or a table state it, else image"


def _unit(manifest: Manifest) -> str:
    """What the counts are of: images, where their patches are not known without their sizes."""
    return "images" if manifest.rule.type == "tiles" else "samples"


@click.command()
@click.argument("source")
@click.option("--out", type=FOLDER, default=Path("sources"), show_default=True, help="Parent folder.")
@click.option("--seed", type=int, metavar="N", default=0, show_default=True, help="Seed of the images.")
@JSON
def fake(source: str, out: Path, seed: int, as_json: bool) -> None:
    """Draw a tiny fake source in the layout of the real one, for trying the programs.

    \b
    Example: dpconvert fake camelyon16 --out sources/
    """
    from dpconvert.manifest.catalog import find, typed

    manifest = find(source)
    from dpconvert.readers.fakes import draw_fake  # after the name is known: most of the start is importing it

    folder = draw_fake(manifest, out, seed)
    if as_json:
        document({"source": manifest.name, "folder": str(folder)})
        return
    tell(f"{folder}: convert it with `dpconvert {typed(manifest)} --source {shlex.quote(str(folder))} --out shards/`")
