"""Manifests in, docs/sources.md out: `make docs`. A test holds the page against the manifests."""

from __future__ import annotations

from pathlib import Path

from dpconvert.manifest.catalog import known, load
from dpconvert.manifest.model import Manifest

PAGE = Path(__file__).with_name("sources.md")
HEAD = """# Sources

Written by `make docs` from `manifests/datasets/`; `dpconvert show SOURCE` prints all that is known of one.

`paper` is the number of images in Mormont et al. (2021), `ours` what converting the whole release gives (a dash where
that depends on pixels, or on an export that is not public). Splits: `strict` is the default, and no group is in two of
its sets; `paper` comes as close to the published sets as the facts allow. Sources that the paper does not have are open
ones that were added: their facts are told as they were found, "reported" where nobody here has seen them in the files.
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
    lines += [f"- get it: {' '.join(filter(None, [m.obtain.url, ' '.join(m.obtain.text.split())])) or 'not told'}"]
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
    """All known ones, in name order."""
    return [load(path) for path in known().values()]


if __name__ == "__main__":
    PAGE.write_text(page(manifests()), encoding="utf-8")
