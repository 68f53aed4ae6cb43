"""The command that lists the networks that come with a table: `backbones`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from dpconvert.runtime.terminal import JSON, answer

if TYPE_CHECKING:
    from mtrain.backbones.card import BackboneCard


@click.command()
@click.argument("action", type=click.Choice(["show"]), required=False, metavar="[show]")
@click.argument("name", required=False)
@JSON
def backbones(action: str | None, name: str | None, as_json: bool) -> None:
    """List the networks that are known by name or, with `show NAME`, describe one.

    Pathology foundation models, and the networks of natural images that they are measured against. You download their
    weights yourself, from where `show` says and under the licence that it names.

    \b
    Example: mtrain backbones show uni2-h
    """
    from dpconvert.names import closest
    from mtrain.backbones import catalog
    from mtrain.errors import UsageError

    if action is None:
        cards = catalog.listed()
        answer(_table(cards), [card.model_dump(mode="json") for card in cards], as_json=as_json)
        return
    if name is None:
        raise UsageError("no network named", remedy="give the name of one that `mtrain backbones` lists")
    card = catalog.load(catalog.known()[closest(name, catalog.known(), "network", "`mtrain backbones` lists all")])
    answer(_about(card), card.model_dump(mode="json"), as_json=as_json)


def _table(cards: list[BackboneCard]) -> Iterator[str]:
    width = max(len(card.name) for card in cards)
    yield f"{'network':{width}}  parameters  features  licence of the weights"
    for card in cards:
        size = "not built" if card.published is None else card.published.parameters
        features = "" if card.published is None else _features(card)
        terms = card.licence.name + (", on request" if card.gated else "")
        yield f"{card.name:{width}}  {size:>10}  {features:>8}  {terms}"


def _features(card: BackboneCard) -> str:
    assert card.published is not None
    return str(card.published.width * (2 if card.features == "cls+mean" else 1))


def _about(card: BackboneCard) -> Iterator[str]:
    scale = f" at {card.mpp:g} um per pixel" if card.mpp else ""
    rows: dict[str, Any] = {"network": card.title}
    if card.published is not None:
        shape = card.published
        rows |= {
            "built as": f"{card.timm} of timm: {shape.depth} blocks, width {shape.width}, patches of {card.patch} px, "
            f"{shape.prefix - 1} registers",
            "parameters": shape.parameters,
            "features": f"{card.features}, {_features(card)} numbers",
        }
    rows |= {
        "not built": card.unavailable,
        "images": f"{card.size} px{scale}, {card.interpolation}",
        "mean, std": f"{_numbers(card.mean)}; {_numbers(card.std)}",
        "licence": ", ".join(filter(None, [card.licence.name, card.licence.url, card.licence.note])),
        "download": " or ".join(card.files),
        "from": card.url + (" (request access on this page first)" if card.gated else ""),
        "put it": None if card.unavailable else "in any folder, and give the file or the folder to --weights",
        "paper": card.paper,
        "note": card.note,
        "reported": card.reported and f"{', '.join(card.reported)}: not confirmed on the authors' pages",
        "use it": None if card.unavailable else f"mtrain fit --backbone {card.name} --weights FILE",
    }
    wide = max(map(len, rows))
    yield from (f"{name:{wide}}  {value}" for name, value in rows.items() if value)


def _numbers(values: tuple[float, ...] | None) -> str:
    return " ".join(f"{value:g}" for value in values or ())
