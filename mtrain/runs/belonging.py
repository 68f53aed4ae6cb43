"""Which files of a run belong together, so that one that was copied from another run is noticed.

The header of shared.safetensors states the settings of its run (`settings`) and the digest of its network
(`network_digest`), as results do (`identity.weights_digest`). Heads, decoder and low-rank updates state the digest of
the network that they were trained with; checkpoints and state.json state the settings. Files of earlier versions state
neither, and are taken as they are, unless state.json shows that a later version wrote them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mtrain.disk.documents import content_digest, known_document, tensor_header
from mtrain.errors import RunError
from mtrain.runs.run_folder import STATE, Run, RunState

SETTINGS, NETWORK = "settings", "network_digest"
OWN = "run"  # what results call the weights of their run


def header(path: Path) -> dict[str, Any]:
    """The metadata in the header of a safetensors file written by mtrain; empty if there is no such file."""
    try:
        with safe_open(path, framework="np") as file:
            return tensor_header(file.metadata())
    except (OSError, SafetensorError):
        return {}


def settings_digest(run: Run) -> str:
    """A digest of all that `mtrain fit` compares before it resumes a run.

    Raises:
        RunError: config.json is absent or damaged.
    """
    about, network = run.about(), run.network()
    return content_digest(
        {
            "config": run.config().determining(),
            "network": network if isinstance(network, str) else network.digest,
            "left_out": about.get("left_out", []),
            "pool": about.get("pool", {}),
            "trained_on": {task: list(sets) for task, sets in run.trained_on().items()},
            "soup": about.get("soup"),
        }
    )


def write_state(run: Run, state: RunState, iteration: int) -> None:
    """Write the state of a run, and of which run it is.

    Raises:
        RunError: the disk is full, or the like.
    """
    run.write(STATE, {"state": state, "iteration": iteration, SETTINGS: settings_digest(run)})


def has_foreign_state(run: Run) -> bool:
    """Whether the run's file of its state is that of another run; earlier versions do not state whose it is."""
    stated = (known_document(run.path / STATE) or {}).get(SETTINGS)
    return stated is not None and stated != settings_digest(run)


def check_weights(run: Run) -> None:
    """Check that the weights of a run were trained with its settings.

    Raises:
        RunError: they are those of another run or were saved by another program, or config.json is of another run.
    """
    stated, known = header(run.weights), (known_document(run.path / STATE) or {}).get(SETTINGS)
    remedy = "restore the run's own files as `mtrain fit` wrote them, or train another run"
    if known is not None and SETTINGS not in stated and run.weights.is_file():
        raise RunError(
            f"{run.weights.name} is not the file that this run wrote",
            where=run.path,
            found="a file whose header does not state the run",
            remedy=remedy,
        )
    if stated.get(SETTINGS, "") not in ("", settings_digest(run)):
        raise RunError(
            f"config.json and {run.weights.name} belong to different runs",
            where=run.path,
            found=f"weights of a run named {stated.get('run', '?')}",
            remedy=remedy,
        )


def check_part(path: Path, about: Mapping[str, Any]) -> None:
    """Check that a file beside a run's weights was trained together with them. about: what its header states.

    Raises:
        RunError: it belongs to another network.
    """
    weights = path.with_name(Run(path.parent).weights.name)
    network = header(weights).get(NETWORK)
    if network is not None and about.get(NETWORK, network) != network:
        raise RunError(
            f"{path.name} and {weights.name} belong to different runs",
            where=path.parent,
            remedy="restore the run's own files, or have `mtrain fit` make them again from the checkpoint",
        )


def fault_of_result(run: Run, content: Mapping[str, Any]) -> str | None:
    """Why a result in the folder of a run is that of another network: a phrase; None if it is not. Nothing is known of
    the folder of a network that no run has trained.
    """
    if not run.exists:
        return None
    identity, config = content.get("identity", {}), run.config()
    if content.get("backbone", config.backbone) != config.backbone:
        return f"a result of {content['backbone']}, and this run trained {config.backbone}"
    if identity.get("size", config.size) != config.size:
        return f"a result for images of {identity['size']} px, and this run's have {config.size} px"
    network = header(run.weights).get(NETWORK)
    digest = identity.get("weights_digest", network)
    if content.get("weights", OWN) == OWN and network is not None and digest != network:
        return "a result of other weights than this run has now"
    return None
