"""An exported folder in, a model repository of the Hugging Face hub out.

The token is the one that `hf auth login` or HF_TOKEN gives the library; it is neither read nor told here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mtrain.errors import RunError, UsageError

SECRET = re.compile(r"hf_\w+|(?<=Bearer )\S+")


def push(folder: Path, repository: str) -> str:
    """Upload `folder` to `repository` (owner/name), made as a private one if need be; its address.

    Raises:
        UsageError: huggingface_hub is not installed, or no name of a repository.
        RunError: the hub refuses or cannot be reached.
    """
    try:
        from huggingface_hub import HfApi, errors
    except ModuleNotFoundError:
        raise UsageError("--push needs huggingface_hub", remedy="pip install 'dpconvert[hub]'") from None
    hub = HfApi()
    transport: Any = errors.HfHubHTTPError.__bases__[
        0
    ]  # of requests, httpx or httpx2: what this version of the hub uses
    try:
        hub.create_repo(repository, repo_type="model", private=True, exist_ok=True)
        commit = hub.upload_folder(repo_id=repository, repo_type="model", folder_path=str(folder))
    except errors.HFValidationError as error:
        raise UsageError(f"--push: {_told(error)}", found=repository, remedy="name it as OWNER/NAME") from None
    except (transport, OSError) as error:
        raise RunError(
            f"the hub did not take it: {_told(error)}", where=repository,
            remedy="`hf auth login` gives the right to; what was exported is kept",
        ) from None  # fmt: skip
    return str(commit.repo_url)


def _told(error: Exception) -> str:
    """The first line of an error, without what looks like a token."""
    return SECRET.sub("***", str(error).strip().partition("\n")[0])
