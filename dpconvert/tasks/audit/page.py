"""Writes an audit as a self-contained page: every pair side by side, and what tasks share.

Images are scaled down and inlined. Names are escaped, and their control characters made visible.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from dpconvert.errors import ShardError, printable
from dpconvert.plural import counted
from dpconvert.tasks import webpage
from dpconvert.tasks.audit.findings import WORDS, Audit, SamplePair

SHOWN = 100  # pairs of a kind
SIDE = 192  # px
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5c6570; --rule: #d9dee4; --page: #fff; --card: #f6f8fa }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --soft: #9aa5b1; --rule: #363d46; --page: #14171b; --card: #1d2127 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 72rem; color: var(--ink); background: var(--page);
  font: 1rem/1.5 system-ui, sans-serif }
h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem }
p { max-width: 45rem; margin: .25rem 0 } .soft, figcaption { color: var(--soft) }
ul { padding-left: 1.25rem } li { overflow-wrap: anywhere }
.pairs { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(26rem, 100%), 1fr)) }
.pair { background: var(--card); border-radius: .5rem; padding: .75rem; break-inside: avoid }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: .75rem }
figure { margin: 0 } figcaption { font-size: .8rem; overflow-wrap: anywhere }
img { display: block; width: 100%; max-width: 12rem; height: auto; image-rendering: auto }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .3rem 1rem .3rem 0; border-bottom: 1px solid var(--rule) }
td.n, th.n { text-align: right }
"""


def write_page(audit: Audit, path: Path) -> None:
    """Write the page to `path` atomically.

    Raises:
        OutputError: the page cannot be written.
        ShardError: a shard changed since the audit.
    """
    webpage.write(_page(audit), path, "--page")


def _page(audit: Audit) -> Iterator[str]:
    cards = audit.samples.cards
    yield from webpage.head("Audit", STYLE)
    yield f"<main><h1>Audit of {counted(len(cards), 'task')}</h1>"
    yield f"<p>{counted(len(audit.samples), 'image')}. {_verdict(audit)}</p>"
    yield from _pairs("Between splits of a task", "Scores on these images are optimistic.", audit.splits, audit)
    yield from _groups(audit)
    yield from _pairs("With two labels", "Equal pixels with different labels.", audit.labels, audit)
    yield from _links(audit)
    yield from _pairs(
        "Between tasks", "Training on one task and testing on the other is not transfer.", audit.tasks, audit
    )
    yield from _not_shown(audit)
    yield "</main></body></html>"


def _not_shown(audit: Audit) -> Iterator[str]:
    lines = [
        (audit.within, "pair", "within one split, where it does not affect scores"),
        (audit.even, "image", "too uniform to be compared by appearance"),
    ]
    if any(count for count, _, _ in lines):
        yield "<h2>Not shown</h2><ul>"
        yield from (f"<li>{counted(count, noun)} {which}</li>" for count, noun, which in lines if count)
        yield "</ul>"


def _verdict(audit: Audit) -> str:
    if audit.clean:
        return "Nothing was found that the tasks do not state."
    return (
        f"{counted(len(audit.splits), 'pair')} between splits, {len(audit.tasks)} between tasks, {len(audit.labels)} "
        f"with two labels, {counted(len(audit.groups), 'divided group')}."
    )


def _pairs(title: str, why: str, pairs: Sequence[SamplePair], audit: Audit) -> Iterator[str]:
    if not pairs:
        return
    rest = f" The {SHOWN} most certain ones are shown; <code>--json</code> lists all." if len(pairs) > SHOWN else ""
    yield f'<h2>{title}: {len(pairs):,}</h2><p class="soft">{why}{rest}</p><div class="pairs">'
    for pair in pairs[:SHOWN]:
        yield f'<section class="pair"><p>{WORDS[pair.same]}, similarity {pair.likeness:.3f}</p><div class="two">'
        yield from (_figure(audit, sample) for sample in (pair.one, pair.other))
        yield "</div></section>"
    yield "</div>"


def _figure(audit: Audit, sample: int) -> str:
    fields = audit.described(sample)
    caption = "<br>".join(_text(f"{name} {fields[name]}") for name in ("task", "split", "label", "group", "key"))
    return (
        f'<figure><img alt="{_text(fields["key"])}" loading="lazy" src="{_inlined(audit, sample)}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _groups(audit: Audit) -> Iterator[str]:
    if not audit.groups:
        return
    yield f'<h2>Divided groups: {len(audit.groups):,}</h2><p class="soft">A patient, slide or image in two splits.</p>'
    lines = [f"{task}: {group} is in {' and '.join(splits)}" for task, group, splits in audit.groups]
    yield from _listed([*lines[:SHOWN], *([f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])])


def _links(audit: Audit) -> Iterator[str]:
    if not audit.links:
        return
    yield "<h2>Related tasks</h2>"
    head = '<tr><th>one</th><th>other</th><th class="n">images</th><th class="n">groups</th><th>stated</th></tr>'
    yield f'<div class="scroll"><table><thead>{head}</thead><tbody>'
    for link in audit.links:
        cells = "".join(f"<td>{_text(task)}</td>" for task in link.tasks)
        cells += f'<td class="n">{link.images:,}</td><td class="n">{link.groups:,}</td>'
        yield f"<tr>{cells}<td>{'yes' if link.stated else '<strong>no</strong>'}</td></tr>"
    yield "</tbody></table></div><p>Leave out together:</p>"
    yield from _listed([", ".join(tasks) for tasks in audit.related])


def _listed(lines: Iterable[str]) -> Iterator[str]:
    yield "<ul>"
    yield from (f"<li>{_text(line)}</li>" for line in lines)
    yield "</ul>"


def _text(value: Any) -> str:
    return escape(printable(str(value)), quote=True)


def _inlined(audit: Audit, sample: int) -> str:
    """The image, scaled to at most SIDE px, as a data URI."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Pillow.open(io.BytesIO(audit.samples.image(sample)), formats=("PNG", "JPEG")) as image:
                small = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        raise ShardError(f"image cannot be decoded: {error}", where=str(audit.samples.key[sample])) from None
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
