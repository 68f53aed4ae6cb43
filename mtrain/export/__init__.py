"""A finished run in, its network in another tool's form out, with a model card beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mtrain.backbones.card import BackboneCard
from mtrain.checksums import SUMS, write_sums
from mtrain.errors import UsageError
from mtrain.export import formats, modelcard
from mtrain.model.heads import About, load_heads
from mtrain.model.network import shared_network
from mtrain.runs import Run, trained_task

__all__ = ["FORMATS", "Exported", "export"]

FORMATS = formats.WRITERS


@dataclass(frozen=True)
class Exported:
    """Where the files lie, and how to load them, a few lines of Python."""

    folder: Path
    files: tuple[str, ...]
    loading: str


def export(run: Run, to: str, out: Path, task: str | None = None, *, accepted: bool = False) -> Exported:
    """Write the network of `run` into `out` as `to` says, with the head of `task` if one is named.

    accepted: the user has the right to pass on what was made of data whose licences do not give it to everyone.

    Raises:
        RunError: the run has not finished.
        UsageError: a licence stands against it, no such head, or a network that `to` does not know.
    """
    run.check_finished()
    heads = load_heads(run.heads)
    head = heads[trained_task(heads, task, run.path)] if task else None
    pool = [head.about for head in heads.values()]
    described = run.network()
    _check_licences(pool, run, described, accepted=accepted)
    network = shared_network(described, run.weights).eval()
    seen = {"seen": run.trained_on()} if to == "safetensors" else {}
    made = FORMATS[to](network, head, out, run.config().size, **seen)
    modelcard.write(out, run, pool, head, made.loading)
    files = (*made.files, modelcard.NAME)
    write_sums(out, files)
    return Exported(out, (*files, SUMS), made.loading)


def start_of(network: str | BackboneCard, weights: str) -> BackboneCard | None:
    """The table whose licence binds what began from these weights; None for random ones, and for networks that go by
    their names.
    """
    return network if isinstance(network, BackboneCard) and network.licensed and weights != "random" else None


def closed_start(network: str | BackboneCard, weights: str) -> list[str]:
    """The weights that a training began from, in words, if their licence does not let everyone pass on what is made."""
    start = start_of(network, weights)
    return [] if start is None or start.licence.open else [f"the weights of {start.name} ({start.licence.name})"]


def _check_licences(pool: list[About], run: Run, network: str | BackboneCard, *, accepted: bool) -> None:
    closed = [of.task for of in pool if not of.licence.get("open")] + closed_start(network, run.config().weights)
    if closed and not accepted:
        raise UsageError(
            f"the licences of {', '.join(closed)} do not let everyone pass on what is made of them",
            where=run.path,
            remedy="ask their owners; with --accept-licence you say that you may, or that it stays with you",
        )
