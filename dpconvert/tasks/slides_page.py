"""Writes all slides of a source on one HTML page: split counts, drawings, and the outlines that are skipped."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from dpconvert.card import SPLITS
from dpconvert.manifest.model import Manifest
from dpconvert.plural import counted
from dpconvert.tasks import webpage
from dpconvert.tasks.gallery.page import scrolled, text
from dpconvert.tasks.slide_summary import SlideSummary, SourceSummary

STYLE = """
main h2 { margin-top: 1.75rem } main > section { margin-top: 0; padding-top: 0; border-top: 0 }
.slides { margin-top: 1.25rem; display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(26rem, 100%), 1fr)) }
.slides > section { background: var(--card); border-radius: .5rem; padding: .75rem; break-inside: avoid }
.slides img { display: block; max-width: 100%; height: auto; border-radius: .25rem }
.slides h3 { margin: 0 0 .35rem } .slides ul { list-style: none; padding: 0; font-size: .9rem; columns: 11rem }
.slides li { break-inside: avoid }
.key { display: inline-block; width: .8em; height: .8em; margin-right: .4em; border: 1px solid var(--soft) }
"""


def write_slides_page(summary: SourceSummary, manifest: Manifest, path: Path) -> None:
    """Write the page to `path` atomically.

    Raises:
        OutputError: the page cannot be written.
    """
    webpage.write(_page(summary, manifest), path, "--out")


def _page(summary: SourceSummary, manifest: Manifest) -> Iterator[str]:
    style = files("dpconvert.tasks.gallery").joinpath("style.css").read_text(encoding="utf-8")
    yield from webpage.head(f"{manifest.task}: preview", style + STYLE)
    yield f"<header><h1>{text(manifest.task)}: {counted(summary.images, 'image')}</h1>"
    yield '<p class="soft">What a conversion would read, before it stores any pixel.</p></header><main>'
    yield "<h2>Samples</h2>"
    if summary.problem:
        yield f'<p class="bad">{text(summary.problem)}</p>'
    elif summary.counts:
        yield from _counts(summary)
    yield from (f'<p class="bad">{text(line)}</p>' for line in summary.empty)
    if summary.slides:
        yield from _skipped(summary.slides)
        yield "<section>"
        yield from _overview(summary)
        yield from _drawings(summary)
        yield "</section>"
    yield "</main></body></html>"


def _counts(summary: SourceSummary) -> Iterator[str]:
    """Samples of each class in each split, and the numbers of images."""
    rows: list[list[Any]] = []
    for number, label in enumerate(summary.classes):
        of_class = [summary.counts[split][number] for split in SPLITS]
        rows.append([text(label), *of_class, sum(of_class)])
    totals = [sum(summary.counts[split]) for split in SPLITS]
    images = Counter(summary.splits.values())
    foot = [["samples", *totals, sum(totals)]]
    foot.append(["images with samples", *(images[split] for split in SPLITS), len(summary.splits)])
    yield from _table("Samples in each split", ["class", *SPLITS, "all"], rows, foot)


def _skipped(slides: list[SlideSummary]) -> Iterator[str]:
    """What is left out or repaired on all slides, and the slides that cannot be read."""
    skipped = sum((Counter(slide.skipped) for slide in slides), Counter[str]())
    where = {reason: sum(reason in slide.skipped for slide in slides) for reason in skipped}
    if skipped:
        yield "<h2>Skipped or repaired</h2>"
        rows = [[text(reason), count, where[reason]] for reason, count in skipped.most_common()]
        yield from _table("On all slides", ["reason", "number", "slides"], rows)
    failed = [slide for slide in slides if slide.failure]
    if failed:
        yield f'<h2 class="bad">Unreadable: {len(failed):,}</h2><ul>'
        yield from (f"<li>{text(slide.image.name)}: {text(slide.failure)}</li>" for slide in failed)
        yield "</ul>"


def _overview(summary: SourceSummary) -> Iterator[str]:
    """One row for each slide."""
    rows: list[list[Any]] = []
    for slide in summary.slides:
        tally = Counter(record.label for record in slide.records)
        rows.append(
            [
                text(slide.image.name),
                text(slide.image.group),
                _split(summary, slide),
                *(tally[label] for label in summary.classes),
                sum(slide.outlines.values()),
                sum(slide.skipped.values()),
            ]
        )
    classes = [text(label) for label in summary.classes]
    yield "<h2>Slides</h2>"
    yield from _table(
        "Samples of each class, and outlines",
        ["slide", "group", "split", *classes, "outlines", "skipped or repaired"],
        rows,
        texts=3,
    )


def _split(summary: SourceSummary, slide: SlideSummary) -> str:
    if slide.failure:
        return '<span class="bad">unreadable</span>'
    return summary.splits.get(slide.image.name) or '<span class="bad">no sample</span>'


def _drawings(summary: SourceSummary) -> Iterator[str]:
    drawn = [slide for slide in summary.slides if slide.drawing]
    if left := len([slide for slide in summary.slides if not slide.failure]) - len(drawn):
        yield f'<p class="soft">The first {len(drawn)} slides are drawn, {left:,} are not.</p>'
    yield '<div class="slides">'
    for slide in drawn:
        facts = [f"{slide.size[0]} × {slide.size[1]} px", f"{slide.mpp:.4g} µm/px" if slide.mpp else "unknown µm/px"]
        yield f"<section><h3>{text(slide.image.name)}</h3>"
        yield f'<p class="soft">{" · ".join([*facts, _split(summary, slide)])}</p>'
        data = base64.b64encode(slide.drawing).decode()
        size = f'width="{slide.drawn[0]}" height="{slide.drawn[1]}"'
        yield f'<img alt="{text(slide.image.name)}" {size} src="data:image/jpeg;base64,{data}"><ul>'
        yield from (
            f'<li><span class="key" style="background: {colour}" aria-hidden="true"></span>{text(line)}</li>'
            for colour, line in slide.legend
        )
        yield from (f"<li>{count} × {text(reason)}</li>" for reason, count in slide.skipped.items())
        yield "</ul></section>"
    yield "</div>"


def _table(
    caption: str, head: list[str], rows: Iterable[list[Any]], foot: Iterable[list[Any]] = (), texts: int = 1
) -> Iterator[str]:
    """A table; the first `texts` columns are text, the others are numbers. Texts must be HTML."""
    classes = [""] * texts + [' class="n"'] * (len(head) - texts)
    yield f'<div class="{scrolled(head)}" role="region" tabindex="0" aria-label="{caption}"><table>'
    yield f"<caption>{caption}</caption>"
    heads = "".join(f'<th scope="col"{c}>{name}</th>' for c, name in zip(classes, head, strict=True))
    yield f"<thead><tr>{heads}</tr></thead>"
    for part, lines in (("tbody", rows), ("tfoot", foot)):
        yield f"<{part}>"
        for row in lines:
            cells = [f"{value:,}" if isinstance(value, int) else value for value in row]
            first, *rest = cells
            others = "".join(f"<td{c}>{cell}</td>" for c, cell in zip(classes[1:], rest, strict=True))
            yield f'<tr><th scope="row">{first}</th>{others}</tr>'
        yield f"</{part}>"
    yield "</table></div>"
