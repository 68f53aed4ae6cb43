"""The commands about sources: `list`, `show`, `check`, and `fake`, which draws one."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dpconvert.cli.options import PATH, SOURCE, with_shape
from dpconvert.manifest.roots import root_of
from dpconvert.plural import counted
from dpconvert.runtime.terminal import JSON, document, table, tell

if TYPE_CHECKING:
    from dpconvert.manifest.model import Manifest


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
        ["source", "task", "kind", "classes", "images", "licence"],
        [
            [m.name, m.task, m.kind, m.num_classes or "", m.paper.total if m.paper else "", m.licence.name]
            for m in manifests
        ],
    )


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
        "group": f"{manifest.group.kind} (ids begin with {manifest.namespace}:)",
        "related tasks": ", ".join(manifest.related),
        "licence": " ".join(filter(None, [manifest.licence.name, manifest.licence.url, manifest.licence.note])),
        "citation": manifest.citation,
    }
    lines += [f"{name + ':':15}{value}" for name, value in facts.items() if value]
    if manifest.paper:
        p = manifest.paper
        lines.append(f"{'the paper:':15}{counted(p.total, 'image')}: train {p.train}, val {p.val}, test {p.test}")
    for name, policy in manifest.split.items():
        lines.append(f"{'split ' + name + ':':15}{policy.note or 'by ' + manifest.group.kind}")
    lines += ["", f"get it: {manifest.obtain.url}".rstrip(), *filter(None, [manifest.obtain.text.strip()])]
    for archive in manifest.obtain.archives:
        lines.append("  " + "  ".join(filter(None, [archive.name, archive.url, archive.digest])))
    lines += ["", "expected files:"]
    for kind in manifest.files.values():
        count = f"{kind.expected} " if kind.expected else ""
        lines.append(f"  {count}{kind.what}, like {kind.example}")
    for erratum in manifest.errata:
        lines.append(
            f"erratum {erratum.name}{'' if erratum.default else ' (off)'}: {erratum.reason} [{erratum.citation}]"
        )
    return lines + [f"note: {note}" for note in manifest.notes]


def _rule(manifest: Manifest) -> str:
    """'area: size 768, ...': the settings that differ from their defaults."""
    settings = manifest.rule.model_dump(exclude_defaults=True, exclude={"type"})
    values = {name: ", ".join(value) if isinstance(value, list) else value for name, value in settings.items()}
    return f"{manifest.rule.type}: {'; '.join(f'{k} {v}' for k, v in values.items())}".removesuffix(": ")


@click.command()
@click.argument("source")
@SOURCE
@JSON
def check(source: str, folder: Path | None, as_json: bool) -> None:
    """Report which files of a source are present and which are missing; reads only their names.

    \b
    Example: dpconvert check camelyon16 --source /data/camelyon16
    """
    from dpconvert.manifest.catalog import find
    from dpconvert.source import unused
    from dpconvert.source.files import Source

    manifest = with_shape(find(source))
    root = root_of(manifest, folder)
    files = Source.open(root, manifest)
    rows, missing = [], False
    for name, kind in manifest.files.items():
        found = len(files.match(name))
        short = found < (kind.expected or 1) and not kind.optional
        missing |= short
        rows.append([kind.what, found, kind.expected or "", "missing" if short else "", kind.example or kind.pattern])
    unmatched = unused.groups(files)
    rows += [[f"not matched: {ending}", len(names), "", "", names[0]] for ending, names in unmatched.items()]
    if as_json:
        names = ("what", "found", "expected", "state", "example")
        document([dict(zip(names, row, strict=True)) for row in rows])
    else:
        tell(f"{root}: {counted(len(files.sizes), 'file')}")
        table(["what", "found", "expected", "", "like"], rows)
        for note in (*files.slides.notes, *unused.notes(files, ())):
            tell(f"note: {note}")
    if missing:
        sys.exit(1)


@click.command()
@click.argument("source")
@click.option("--out", type=PATH, default=Path("sources"), show_default=True, help="Parent folder.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the images.")
@JSON
def fake(source: str, out: Path, seed: int, as_json: bool) -> None:
    """Draw a tiny fake source in the layout of the real one, for trying the programs.

    \b
    Example: dpconvert fake camelyon16 --out sources/
    """
    from dpconvert.manifest.catalog import find, typed
    from dpconvert.readers.fakes import draw_fake

    manifest = find(source)
    folder = draw_fake(manifest, out, seed)
    if as_json:
        document({"source": manifest.name, "folder": str(folder)})
        return
    tell(f"{folder}: convert it with `dpconvert {typed(manifest)} --source {shlex.quote(str(folder))} --out shards/`")
