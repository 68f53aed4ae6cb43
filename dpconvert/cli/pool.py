"""The command `pool`, and `fetch --pool`: downloads and converts a named list of sources."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpconvert.cli.options import FOLDER, with_shape
from dpconvert.errors import UsageError, UserError
from dpconvert.manifest.roots import SOURCES_VARIABLE, sources_folder
from dpconvert.plural import counted
from dpconvert.runtime.terminal import JSON, document, say, table, tell

if TYPE_CHECKING:
    from dpconvert.manifest.pools import SourcePool
    from dpconvert.obtain.pool import Arrival, PoolMember
    from dpconvert.runtime.progress import Reporter


@click.command("pool")
@click.argument("pool", required=False)
@click.option(
    "--root",
    type=FOLDER,
    help=f"Folder with one subfolder for each source.  [default: ${SOURCES_VARIABLE}, else sources]",
)
@click.option("--out", type=FOLDER, default=Path("shards"), show_default=True, help="Folder of the shards.")
@JSON
def show_pool(pool: str | None, root: Path | None, out: Path, as_json: bool) -> None:
    """Show the sources of a pool: tasks, sizes, licences, organs, stains, and what exists here. Without POOL, list all.

    A pool is a named list of sources that `dpconvert fetch --pool` downloads and converts; POOL may also be the path of
    your own list (TOML).

    \b
    Example: dpconvert pool open-hour
    """
    from dpconvert.manifest.pools import find_pool, known_pools

    if pool is None:
        _list([find_pool(str(path)) for path in known_pools().values()], as_json=as_json)
        return
    found = find_pool(pool)
    from dpconvert.obtain.pool import members  # after the name is known: it takes long to import

    chosen = members(found, root or sources_folder(), out)
    if as_json:
        document({"pool": found.name, "title": found.title, "sources": [_content(member) for member in chosen]})
        return
    for line in filter(None, [f"{found.name}: {found.title}".removesuffix(": "), found.text]):
        tell(line)
    tell("")
    head = ["source", "task", "organ", "stain", "licence", "download GB", "with shards GB", "here"]
    table(head, [_row(member) for member in chosen], whole=0)
    tell("")
    for line in _on_licences(chosen):
        tell(line)
    tell(_total(chosen))


def _on_licences(chosen: list[PoolMember]) -> Iterator[str]:
    """What the licences in the table mean, where this is more than their names."""
    stated = {member.manifest.licence.name for member in chosen}
    if any(name.endswith("(reported)") for name in stated):
        yield "(reported): others state this licence; nobody has verified it on the page of the data"
    if "not stated" in stated:
        yield "not stated: the release names no licence, so ask its authors before you publish anything made from it"
    if closed := sum(not member.manifest.licence.open for member in chosen):
        sources = counted(closed, "source")
        yield f"`dpconvert fetch --pool` asks once whether you accept the terms of the {sources} not known to be open"


def _list(pools: list[SourcePool], *, as_json: bool) -> None:
    if as_json:
        document([{"name": p.name, "title": p.title, "sources": [s.name for s in p.sources]} for p in pools])
        return
    table(["pool", "sources", "title"], [[pool.name, len(pool.sources), pool.title] for pool in pools])


def _content(member: PoolMember) -> dict[str, Any]:
    manifest = member.manifest
    return {
        "source": manifest.name,
        "task": manifest.task,
        "organ": manifest.organ,
        "stain": manifest.stain,
        "licence": manifest.licence.model_dump(),
        "gigabytes": member.sizes.model_dump(exclude={"name"}),
        "state": member.state,
    }


def _row(member: PoolMember) -> list[Any]:
    manifest, sizes = member.manifest, member.sizes
    whole = sizes.download + sizes.unpacked + sizes.shards
    known = [f"{size:.{1 if size >= 0.1 else 2}f}" if size else "unknown" for size in (sizes.download, whole)]
    return [manifest.name, manifest.task, manifest.organ, manifest.stain, manifest.licence.name, *known, member.state]


def _total(chosen: list[PoolMember]) -> str:
    needs = [member.needs for member in chosen]
    files, shards = (sum(part) / 1e9 for part in zip(*needs, strict=True))
    done = sum(member.state == "converted" for member in chosen)
    unknown = sum(member.state != "converted" and not member.sizes.download for member in chosen)
    more = f", without {counted(unknown, 'source')} of unknown size" if unknown else ""
    needed = f"about {files + shards:.1f} GB of disk{more}"
    return f"{done} of {counted(len(chosen), 'task')} converted; the rest needs {needed}"


def fetch_pool(
    name: str,
    base: Path | None,
    out: Path,
    report: Reporter,
    *,
    accepted: bool,
    convert: bool,
    at_once: int,
    workers: int | None,
    as_json: bool,
) -> None:
    """Download the sources of a pool, several at a time, and convert each as it arrives.

    Sources whose task is complete are left as they are. What fails is reported, the others are finished, and the exit
    status is 1.
    """
    from dpconvert.manifest.pools import find_pool

    pool, base = find_pool(name), base or sources_folder()
    from dpconvert.obtain.pool import arrivals, check_room, members  # after the name is known: it takes long to import

    chosen = members(pool, base, out)
    todo = [m for m in chosen if m.state != "converted" and (convert or m.state != "downloaded")]
    _accept([m for m in todo if m.state != "downloaded"], accepted=accepted, as_json=as_json)
    check_room(todo, base, out, convert=convert)
    failed: dict[str, str] = {}
    with closing(arrivals(todo, report, at_once=at_once)) as arrived:
        for number, arrival in enumerate(arrived, 1):
            try:
                line = _finished(arrival, out, report, convert=convert, workers=workers)
            except UserError as error:
                failed[arrival.member.manifest.name] = str(error)
                say(f"dpconvert: error: {arrival.member.manifest.name}: {error}", bold=True)
                continue
            report.note(f"[{number}/{len(todo)}] {line}")
    _summary(pool, chosen, failed, base, out, as_json=as_json)


def _finished(arrival: Arrival, out: Path, report: Reporter, *, convert: bool, workers: int | None) -> str:
    """Convert a source that arrived; a line on what became of it.

    Raises:
        UserError: it did not arrive, or cannot be converted.
    """
    from dpconvert.conversion import convert as conversion
    from dpconvert.plan.options import Options
    from dpconvert.runtime.processes import workers_of

    member, manifest = arrival.member, arrival.member.manifest
    if isinstance(arrival.result, UserError):
        raise arrival.result
    if not convert:
        return f"{manifest.name}: downloaded to {member.folder}"
    report.note(f"{manifest.name}: converting")
    converted = conversion(
        with_shape(manifest),
        member.folder,
        out,
        Options(),
        workers=workers_of("local", workers, None),
        overwrite=False,
        report=report.named(manifest.name),
    )
    return f"{manifest.task}: {counted(converted.card.samples(), 'sample')} -> {converted.folder}"


def _accept(chosen: list[PoolMember], *, accepted: bool, as_json: bool) -> None:
    """Show the licences of what is to be downloaded, and ask once for all that are not open.

    Raises:
        UsageError: they are not accepted.
    """
    from dpconvert.manifest.catalog import typed

    closed = [member.manifest for member in chosen if not member.manifest.licence.open]
    if not closed or accepted:
        return
    if sys.stdin.isatty() and not as_json:
        rows = [[m.name, m.licence.name, " ".join(filter(None, [m.licence.url, m.licence.note]))] for m in closed]
        tell("these sources are not under an open licence, or their terms are not verified:")
        table(["source", "licence", "terms"], rows)
        if click.confirm("do you accept these terms for all of them?", err=True):
            return
    named = ", ".join(f"{manifest.name} ({manifest.licence.name})" for manifest in closed)
    raise UsageError(
        f"licences that are not accepted: {named}",
        remedy=f"read their terms (`dpconvert show {typed(closed[0])}`), and give --accept-licences if you agree",
    )


def _summary(
    pool: SourcePool, chosen: list[PoolMember], failed: dict[str, str], base: Path, out: Path, *, as_json: bool
) -> None:
    if as_json:
        content = [_content(member) | {"error": failed.get(member.manifest.name)} for member in chosen]
        document({"pool": pool.name, "sources": content})
    else:
        states = [member.state for member in chosen]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        tell(f"{pool.name}: {counts}")
        if failed:
            tell(f"failed: {', '.join(failed)}; run the same command again: finished parts are kept")
        elif "converted" in states:
            tell(f"train on it with `mtrain fit --shards {shlex.quote(str(out))}`")
        else:
            tell(f"convert it with `dpconvert all --root {shlex.quote(str(base))} --out {shlex.quote(str(out))}`")
    if failed:
        sys.exit(1)
