"""Writes the HTML page of tasks. It is self-contained, and its policy forbids loading anything.

Text from a source or a manifest (names, notes, reasons) is escaped, and its control characters are made visible.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from dpconvert.card import METRICS, Licence, TaskCard
from dpconvert.errors import cut, printable
from dpconvert.plural import counted
from dpconvert.tasks import webpage
from dpconvert.tasks.gallery import histogram
from dpconvert.tasks.gallery.colours import ColourBaseline
from dpconvert.tasks.gallery.tasks import CLASSES, LOOKED_AT, Gallery, SampleImage, TaskSummary
from dpconvert.tasks.overlay import colour_of

FAILURES = 50  # listed for each task
WIDE = 130  # characters of a table's head, its gaps included, that a page can hold
SPLITS = {"train": "training", "val": "validation", "test": "test"}


def write_page(gallery: Gallery, path: Path) -> None:
    """Write the page to `path` atomically.

    Raises:
        OutputError: the page cannot be written.
    """
    webpage.write(_page(gallery), path, "--out")


def _page(gallery: Gallery) -> Iterator[str]:
    style = files("dpconvert.tasks.gallery").joinpath("style.css").read_text(encoding="utf-8")
    title = f"{counted(len(gallery.tasks), 'task')}"
    images = sum(seen.card.samples() for seen in gallery.tasks)
    yield from webpage.head(title, style)
    yield '<a class="skip" href="#tasks">To the tasks</a>'
    yield f'<header><h1>{title}, {images:,} images</h1><p class="soft">Converted by dpconvert. The images on this page '
    yield "are from the training sets (or the validation set, if a class has none there), scaled down.</p></header>"
    yield from _contents(gallery)
    yield '<main id="tasks">'
    yield from _unfinished(gallery)
    for number, seen in enumerate(gallery.tasks):
        yield from _task(seen, number)
    yield "</main></body></html>"


def _contents(gallery: Gallery) -> Iterator[str]:
    """A table of all tasks, with links to their sections."""
    yield '<nav aria-label="Tasks">'
    head = ["task", "organ", "stain", "classes", *SPLITS, "by colours alone", "licence"]
    yield from _table(
        "Samples in each set; and the score on the validation set of a classifier that sees colour histograms alone",
        head,
        (
            [
                f'<a href="#task-{number}">{text(seen.card.task)}</a>',
                text(seen.card.organ),
                text(seen.card.stain),
                len(seen.card.classes),
                *_sizes(seen.card),
                _colours(seen.colours),
                text(seen.card.licence.name),
            ]
            for number, seen in enumerate(gallery.tasks)
        ),
    )
    yield "</nav>"


def _colours(colours: ColourBaseline | None) -> str:
    return "–" if colours is None else f"{colours.score:.2f} (chance {colours.chance:.2f})"


def _unfinished(gallery: Gallery) -> Iterator[str]:
    if gallery.unfinished:
        yield '<section aria-labelledby="unfinished"><h2 id="unfinished" class="bad">Unreadable</h2>'
        yield from _listed(f"{broken.folder.name}: {broken.why}" for broken in gallery.unfinished)
        yield "</section>"


def _task(seen: TaskSummary, number: int) -> Iterator[str]:
    card, name = seen.card, f"task-{number}"
    yield f'<section aria-labelledby="{name}">'
    yield f'<h2 id="{name}" tabindex="-1">{text(card.task)} <span>{text(card.title)}</span></h2>'
    yield from _facts(card, seen.colours)
    yield f"<h3>Samples</h3>{''.join(_counts(card, name))}"
    if empty := card.empty_sets():
        yield f'<p class="bad">{text("; ".join(empty))}</p>'
    yield "<h3>Images</h3>"
    for label, of_class in enumerate(card.classes[:CLASSES]):
        count = sum(split.classes[label] for split in card.splits.values())
        yield from _images(of_class, count, seen.examples.get(label, []))
    if card.target == "value":
        yield from _images(f"{card.unit or 'value'}: lowest to highest", card.samples(), seen.examples.get(0, []))
    if len(card.classes) > CLASSES:
        yield f'<p class="soft">{len(card.classes) - CLASSES} more classes are not shown.</p>'
    yield '<h3>Sizes</h3><div class="figures">'
    yield from _histograms(seen)
    yield "</div>"
    yield from _remarks(card)
    yield "</section>"


def _facts(card: TaskCard, colours: ColourBaseline | None) -> Iterator[str]:
    facts = {
        "source": text(card.source),
        "kind": text(card.kind),
        "organ": text(card.organ),
        "stain": text(card.stain),
        "licence": _licence(card.licence),
        "citation": text(card.citation),
        "split": text(card.split_policy),
        "related tasks": text(", ".join(card.related)),
        "score": METRICS[card.metric],
        "by colours alone": "" if colours is None else text(colours.in_words()),
        "dense targets": _targets(card),
        "shards": f"{len(card.shards)}, {sum(shard.size for shard in card.shards) / 1e6:,.1f} MB",
        "digest": f"<code>{text(card.digest)}</code>",
        "made by": text(", ".join(f"{tool} {version}" for tool, version in sorted(card.tools.items()))),
    }
    yield "<dl>"
    yield from (f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items() if value)
    yield "</dl>"


def _licence(licence: Licence) -> str:
    """The licence, with a link only if its address is one of the web: a manifest may contain `javascript:`."""
    name = text(licence.name)
    if licence.url.startswith(("https://", "http://")):
        name = f'<a href="{text(licence.url)}" rel="noopener noreferrer">{name}</a>'
    return " · ".join(filter(None, [name, "open" if licence.open else "not open", text(licence.note)]))


def _counts(card: TaskCard, name: str) -> Iterator[str]:
    """A table of classes by set, with totals and groups below."""
    present = [split for split in SPLITS if split in card.splits]
    rows: list[list[Any]] = []
    for label, of_class in enumerate(card.classes):
        counts = [card.splits[split].classes[label] for split in present]
        rows.append([text(of_class), *counts, sum(counts)])
    foot: list[list[Any]] = [["samples", *(card.splits[s].samples for s in present), card.samples()]]
    groups = [card.splits[s].groups for s in present]
    foot.append([f"groups: {text(card.group_kind)}", *groups, ""])
    yield from _table("", ["class", *(SPLITS[s] for s in present), "all"], rows, foot, labelled=name)


def _images(name: str, count: int, examples: list[SampleImage]) -> Iterator[str]:
    yield f"<h4>{text(name)} <span>{len(examples)} of {count:,}</span></h4>"
    if not examples:
        yield f'<p class="soft">{"none outside the test set" if count else "none"}</p>'
        return
    yield from _list_of_images(name, [(shown, shown.jpeg) for shown in examples])
    overlays = [(shown, shown.overlay) for shown in examples if shown.overlay is not None]
    if overlays:
        yield from _list_of_images(f"{name}, with targets", overlays)


def _list_of_images(name: str, images: list[tuple[SampleImage, bytes]]) -> Iterator[str]:
    yield '<ul class="images">'
    for shown, jpeg in images:
        data = base64.b64encode(jpeg).decode()
        alternative = text(f"{name}: {shown.key}")
        where = f"{SPLITS[shown.split]}{f', {text(shown.label)}' if shown.label else ''}"
        yield (
            f'<li><img alt="{alternative}" title="{text(shown.key)}, {where}" width="{shown.width}" '
            f'height="{shown.height}" src="data:image/jpeg;base64,{data}"></li>'
        )
    yield "</ul>"


def _targets(card: TaskCard) -> str:
    """The dense targets of a task, with the colours in which they are drawn; '' if it keeps none."""
    if card.dense is None:
        return ""
    return "; ".join(f"{kind}: {_coloured(of.classes)}" for kind, of in card.dense.kinds.items())


def _coloured(classes: list[str]) -> str:
    return ", ".join(
        f'<span style="color:{colour_of(number)}" aria-hidden="true">■</span> {text(name)}'
        for number, name in enumerate(classes)
    )


def _histograms(seen: TaskSummary) -> Iterator[str]:
    yield from _histogram("Width", histogram.even_bars(seen.widths), histogram.in_words(seen.widths, "px"))
    yield from _histogram("Height", histogram.even_bars(seen.heights), histogram.in_words(seen.heights, "px"))
    if len(seen.mpp):
        few = f" (of {len(seen.mpp)} samples)" if seen.card.samples() > LOOKED_AT else ""
        words = histogram.in_words(seen.mpp, "µm/px") + few
        yield from _histogram("Resolution as stored", histogram.even_bars(seen.mpp), words)
    else:
        yield "<figure><figcaption><strong>Resolution</strong>unknown</figcaption></figure>"
    kind = f"Samples per group ({text(seen.card.group_kind)})"
    yield from _histogram(kind, histogram.doubling_bars(seen.groups), histogram.in_words(seen.groups, "samples"))


def _histogram(title: str, bars: list[histogram.Bar], words: str) -> Iterator[str]:
    yield f"<figure><figcaption><strong>{title}</strong>{text(words)}</figcaption>"
    if len(bars) > 1:
        yield from histogram.drawn(bars, f"Histogram: {words}")
    yield "</figure>"


def _remarks(card: TaskCard) -> Iterator[str]:
    differences = [
        f"{d.what}: expected {d.expected:,}, found {d.made:,}, {d.reason or 'no known reason'}"
        for d in card.expectations
    ]
    notes = [note for note in card.notes if note not in card.empty_sets()]
    if notes or differences:
        yield "<h3>Notes</h3>"
        yield from _listed([*notes, *differences])
    if card.failures:
        yield f'<h3 class="bad">Left out: {len(card.failures):,} unreadable samples</h3>'
        yield from _listed(f"{f.key} ({f.source}): {f.reason}" for f in card.failures[:FAILURES])
        if len(card.failures) > FAILURES:
            yield f'<p class="soft">and {len(card.failures) - FAILURES:,} more, listed in task.json</p>'


def _table(
    caption: str, head: list[str], rows: Iterable[list[Any]], foot: Iterable[list[Any]] = (), labelled: str = ""
) -> Iterator[str]:
    """A table with numbers to the right. Texts must be HTML. If the table is too wide, the keyboard scrolls it."""
    named = f'aria-labelledby="{labelled}"' if labelled else f'aria-label="{caption}"'
    numbers = {"classes", "all", *SPLITS, *SPLITS.values()}
    columns = [name in numbers for name in head]
    yield f'<div class="{scrolled(head)}" role="region" tabindex="0" {named}><table>'
    yield f"<caption>{caption}</caption>" * bool(caption)
    cells = (f'<th scope="col"{_n(right)}>{name}</th>' for name, right in zip(head, columns, strict=True))
    yield f"<thead><tr>{''.join(cells)}</tr></thead><tbody>"
    yield from (_row(row, columns) for row in rows)
    yield "</tbody>"
    if lines := [_row(row, columns) for row in foot]:
        yield f"<tfoot>{''.join(lines)}</tfoot>"
    yield "</table></div>"


def scrolled(head: Sequence[str]) -> str:
    """The CSS classes of a table's box, which hint at scrolling where it is probably wider than the page."""
    if len(head) > 5:
        return "scroll many" if sum(map(len, head)) + 3 * len(head) > WIDE else "scroll wide"
    return "scroll"


def _row(row: list[Any], columns: list[bool]) -> str:
    plain = [f"{cell:,}" if isinstance(cell, int) else cell for cell in row]
    rest = "".join(f"<td{_n(right)}>{cell}</td>" for cell, right in zip(plain[1:], columns[1:], strict=True))
    return f'<tr><th scope="row">{plain[0]}</th>{rest}</tr>'


def _n(right: bool) -> str:
    return ' class="n"' if right else ""


def _sizes(card: TaskCard) -> list[int]:
    return [card.splits[split].samples if split in card.splits else 0 for split in SPLITS]


def _listed(lines: Iterable[str]) -> Iterator[str]:
    yield "<ul>"
    yield from (f"<li>{text(line)}</li>" for line in lines)
    yield "</ul>"


def text(value: object) -> str:
    """The value as text that is safe in an element and in a quoted attribute."""
    return escape(printable(cut(str(value))), quote=True)
