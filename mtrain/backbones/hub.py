"""A network's repository on the Hugging Face Hub in, the folder of its files out.

The library's cache is searched first, so that a repository that was downloaded before needs no connection and does not
change between a run and its continuation. Gated repositories need a token (`hf auth login`); this module does not read
it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from mtrain.backbones.downloads import announced
from mtrain.errors import RunError, UsageError

NEEDED = ["config.json", "preprocessor_config.json", "model*.safetensors*", "pytorch_model*.bin*"]


@cache
def snapshot(repository: str) -> Path:
    """Return the folder with the configuration and the weights of `repository` (owner/name, or owner/name@revision).

    Raises:
        UsageError: huggingface_hub is not installed, or the name is not that of a repository.
        RunError: the repository is not in the cache and cannot be downloaded.
    """
    try:
        import huggingface_hub as hub
        from huggingface_hub import errors
    except ModuleNotFoundError:
        raise UsageError("networks of the hub need huggingface_hub", remedy="pip install 'dpconvert[hub]'") from None
    name, _, revision = repository.partition("@")
    # the base class of the HTTP library that this version of the hub uses: requests, httpx or httpx2
    transport: Any = errors.HfHubHTTPError.__bases__[0]
    wanted: dict[str, Any] = {"revision": revision or None, "allow_patterns": NEEDED}
    try:
        with announced(f"{name} from the Hugging Face Hub"):
            folder = _cached(hub, name, wanted) or Path(hub.snapshot_download(name, **wanted))
    except errors.HFValidationError as error:
        raise UsageError(f"not a repository of the hub: {_first_line(error)}", found=repository) from None
    except (transport, OSError) as error:
        raise _unavailable(repository, _first_line(error)) from None
    if not _is_whole(folder):
        raise _unavailable(repository, f"no configuration and weights in {folder}")
    return folder


def _cached(hub: Any, name: str, wanted: dict[str, Any]) -> Path | None:
    from huggingface_hub import errors

    try:
        folder = Path(hub.snapshot_download(name, local_files_only=True, **wanted))
    except (errors.LocalEntryNotFoundError, errors.RevisionNotFoundError):
        return None
    return folder if _is_whole(folder) else None


def _is_whole(folder: Path) -> bool:
    """Whether a folder has a configuration and weights."""
    names = [path.name for path in folder.iterdir()]
    return "config.json" in names and any(name.startswith(("model", "pytorch_model")) for name in names)


def _unavailable(repository: str, reason: str) -> RunError:
    return RunError(
        f"not in the hub's cache, and not to be downloaded: {reason}",
        where=repository,
        remedy=f"run `hf download {repository.partition('@')[0]} --local-dir DIR` where you can, and give "
        "--backbone DIR",
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
