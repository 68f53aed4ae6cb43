"""Exports the network of a finished run for other tools, with a model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mtrain.backbones.card import BackboneCard
from mtrain.disk.checksums import SUMS, remove_others, write_sums
from mtrain.disk.documents import write_document
from mtrain.errors import UsageError
from mtrain.export import adapter, formats, modelcard, snippets
from mtrain.model.dense.dense_file import load_dense, save_dense
from mtrain.model.heads import About, load_heads
from mtrain.model.network import shared_network
from mtrain.model.weight_files.weights import SEEN, seen_by
from mtrain.provenance import licence_of_start
from mtrain.runs.belonging import check_weights
from mtrain.runs.run_folder import Run, trained_task
from mtrain.runs.seen import closed

__all__ = ["FORMATS", "Exported", "export"]

FORMATS = (*formats.WRITERS, adapter.FORMAT)

# what an export may write
WRITTEN = ("config.json", modelcard.NAME, SUMS, "*.safetensors", "*.pth", "*.onnx", adapter.CONFIG)


@dataclass(frozen=True)
class Exported:
    """The exported files: their folder, their names, and `loading`, Python code that loads them. restricted: whether
    a licence does not let everyone share them. removed: the names of files of an earlier export that this one replaced.
    """

    folder: Path
    files: tuple[str, ...]
    loading: str
    restricted: bool = False
    removed: tuple[str, ...] = ()


def export(run: Run, to: str, out: Path, task: str | None = None, *, accepted: bool = False) -> Exported:
    """Write the network of `run` to `out` in the format `to`, with the head for `task` if one is given. It replaces an
    earlier export in `out`, so that the folder never holds parts of two networks.

    accepted: the user may share weights trained on data whose licences do not allow everyone to do so.

    Raises:
        RunError: the run is not finished.
        UsageError: a licence does not allow it, there is no such head, or the format does not support the network.
    """
    run.check_finished()
    check_weights(run)
    _check_folder(out)
    heads = load_heads(run.heads)
    head = heads[trained_task(heads, task, run.path)] if task else None
    if head is not None and head.about.target != "class":
        what = "has any number of classes" if head.about.target == "labels" else "predicts a number"
        raise UsageError(
            f"an exported head has one class for an image, and that of {head.about.task} {what}",
            where=run.path,
            remedy="export the network without --task",
        )
    pool = [head.about for head in heads.values()]
    described = run.network()
    contains_start = to != adapter.FORMAT
    restricted = _check_licences(pool, run, described if contains_start else None, accepted=accepted)
    scores = modelcard.scores(run)  # whatever is refused is refused before anything is written
    dense = load_dense(run.dense) if run.config().dense else None
    network = shared_network(described, run.weights).eval()
    if to == adapter.FORMAT:
        written = adapter.to_adapter(run, network, head, out)
    else:
        written = formats.WRITERS[to](network, head, out, run.config().size, run.seen())
    write_document(out / SEEN, run.seen().json())
    tools = snippets.section(run.name, network, run.config().size, written.encoder)
    modelcard.write(out, run, pool, head, written.loading, tools, scores)
    files = (*written.files, SEEN, modelcard.NAME)
    if dense is not None:
        save_dense(out / run.dense.name, dense, {"backbone": network.name, **run.seen().json()})
        files = (*files, run.dense.name)
    removed = tuple(remove_others(out, files))
    write_sums(out, files)
    return Exported(out, (*files, SUMS), written.loading, restricted, removed)


def _check_folder(out: Path) -> None:
    """Raises:
    UsageError: the folder holds files of others that an export would overwrite.
    """
    if (out / SEEN).is_file():  # an earlier export
        return
    written = [path.name for pattern in WRITTEN for path in sorted(out.glob(pattern))]
    if written:
        raise UsageError(
            "this folder holds other files, which an export would overwrite",
            where=out,
            found=", ".join(written[:3]),
            remedy="give another --out",
        )


def closed_start(network: str | BackboneCard, weights: str) -> list[str]:
    """The weights that a training began from, in words, and what these derive from themselves, where a licence does not
    let everyone pass on what is made.

    Raises:
        RunError: the record of what the weights derive from is damaged.
    """
    own = closed(licence_of_start(network, weights))
    return in_words(own | seen_by(weights, network).restricted)


def in_words(restricted: Mapping[str, Sequence[str]]) -> list[str]:
    """Tasks and weights with their licences, for a message."""
    return [with_licence(name, " and ".join(licences)) for name, licences in restricted.items()]


def with_licence(name: str, licence: str) -> str:
    """A task or a network in a message about its licence, which its manifest or table may not state."""
    return f"{name} ({licence})" if licence else name


def licence_error(restricted: Sequence[str]) -> str:
    """The error about sharing what derives from these tasks and weights, at least one."""
    if len(restricted) == 1:
        return f"the licence of {restricted[0]} does not allow everyone to share weights derived from it"
    what = f"{', '.join(restricted[:-1])} and {restricted[-1]}"
    return f"the licences of {what} do not allow everyone to share weights derived from them"


def _check_licences(pool: list[About], run: Run, start: str | BackboneCard | None, *, accepted: bool) -> bool:
    """Whether a licence restricts sharing. start: the network whose first weights the export contains, if it does;
    these may derive from tasks and weights of their own.

    Raises:
        UsageError: one does, and this is not accepted.
    """
    restricted = [
        with_licence(about.task, str(about.licence.get("name", ""))) for about in pool if not about.licence.get("open")
    ]
    if start is not None:
        earlier = run.seen().restricted | closed(licence_of_start(start, run.config().weights))
        restricted += in_words({name: earlier[name] for name in earlier if name not in {about.task for about in pool}})
    if restricted and not accepted:
        raise UsageError(
            licence_error(restricted),
            where=run.path,
            remedy="ask the owners; --accept-licence confirms that you may, or that you will not share the weights",
        )
    return bool(restricted)
