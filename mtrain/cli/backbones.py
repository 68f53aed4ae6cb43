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

    NAME may also be the path of a table, or of a folder that timm or transformers wrote.

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
    card, own = catalog.at_path(name), catalog.folder_of(name) is not None
    if card is None:
        card = catalog.load(catalog.known()[closest(name, catalog.known(), "network", "`mtrain backbones` lists all")])
        name = card.name
    answer(_about(card, name, own), card.model_dump(mode="json"), as_json=as_json)


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


def _about(card: BackboneCard, name: str, own: bool) -> Iterator[str]:
    """own: whether the network lies in a folder with its weights."""
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
    elif not card.unavailable:
        options = ", ".join(f"{key}={value}" for key, value in card.options.items())
        rows |= {"built as": f"{card.timm} of timm{f' with {options}' if options else ''}", "features": card.features}
    size = f"{card.size} px" if card.size else "size of timm"
    rows |= {
        "not built": card.unavailable,
        "images": f"{size}{scale}, {card.interpolation}",
        "mean, std": f"{_numbers(card.mean)}; {_numbers(card.std)}",
        "licence": ", ".join(filter(None, [card.licence.name, card.licence.url, card.licence.note])),
        "download": " or ".join(card.files),
        "sha256": ", ".join(f"{digest} ({file})" for file, digest in card.sha256.items()),
        "from": card.url + (" (request access on this page first)" if card.gated else ""),
        "put it": None if card.unavailable or own else "in any folder, and give the file or the folder to --weights",
        "paper": card.paper,
        "note": card.note,
        "reported": card.reported and f"{', '.join(card.reported)}: not confirmed on the authors' pages",
        "use it": None if card.unavailable else f"mtrain fit --backbone {name}{'' if own else ' --weights FILE'}",
    }
    wide = max(map(len, rows))
    yield from (f"{name:{wide}}  {value}" for name, value in rows.items() if value)


def _numbers(values: tuple[float, ...] | None) -> str:
    return "of timm" if values is None else " ".join(f"{value:g}" for value in values)
