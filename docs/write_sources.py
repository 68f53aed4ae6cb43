"""Writes docs/sources.md from the manifests: `make docs`. A test compares the page with the manifests."""

from __future__ import annotations

from pathlib import Path

from dpconvert.manifest.catalog import known, load
from dpconvert.manifest.model import Manifest

PAGE = Path(__file__).with_name("sources.md")
HEAD = """# Sources

This page lists the sources that `dpconvert` knows, with their counts, splits, licences, and how to get them.
`dpconvert show SOURCE` prints all that is known about one source. `make docs` generates this page from
`manifests/datasets/`.

- `paper` is the number of images in Mormont et al. (2021).
- `ours` is the number that converting the complete release gives, or a dash if that depends on pixels or on an export
  that is not public.
- The split `strict` is the default: no group is in two of its sets.
- The split `paper` follows the published sets as closely as the known facts allow.
- Sources that are not in the paper are open datasets. A fact that was not checked in the files is marked as reported.
"""


def page(manifests: list[Manifest]) -> str:
    """The whole page."""
    rows = [
        "| source | task | kind | classes | paper | ours | group | licence |",
        "|---|---|---|---:|---:|---:|---|---|",
    ]
    return "\n".join([HEAD, *rows, *map(_row, manifests), "", *(_section(m) for m in manifests)])


def _row(m: Manifest) -> str:
    paper = f"{m.paper.total:,}" if m.paper else "–"
    ours = f"{m.expected.total:,}" if m.expected.total and "total" not in m.expected.reasons else "–"
    if m.expected.total and m.paper and m.expected.total != m.paper.total:
        ours = f"{m.expected.total:,}"
    classes = str(m.num_classes or "–")
    name = f"[{m.name}](#{m.name})"
    return _line([name, m.task, m.kind, classes, paper, ours, m.group.kind, m.licence.name])


def _section(m: Manifest) -> str:
    lines = [f"## {m.name}", "", f"{m.title}." if m.title else "", ""]
    obtain = " ".join(filter(None, [m.obtain.url, *m.obtain.text.split()]))
    lines += [f"- how to get it: {obtain or 'not published'}"]
    lines += [f"- licence: {'; '.join(filter(None, [m.licence.name, m.licence.note]))}"]
    lines += [f"- split {name}: {policy.note or 'by ' + m.group.kind}" for name, policy in sorted(m.split.items())]
    if m.paper:
        lines.append(f"- the paper's sets: train {m.paper.train:,}, val {m.paper.val:,}, test {m.paper.test:,}")
    lines += [f"- related tasks: {', '.join(m.related)}"] if m.related else []
    lines += [f"- {what}: {reason}" for what, reason in m.expected.reasons.items()]
    lines += [f"- erratum `{e.name}`{'' if e.default else ' (off)'}: {e.reason} ({e.citation})" for e in m.errata]
    lines += [f"- {note}" for note in m.notes]
    lines += [f"- cite: {m.citation}"] if m.citation else []
    return "\n".join([*lines, ""])


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def manifests() -> list[Manifest]:
    """All known manifests, in the order of names."""
    return [load(path) for path in known().values()]


if __name__ == "__main__":
    PAGE.write_text(page(manifests()), encoding="utf-8")
