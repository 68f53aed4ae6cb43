"""Uploads an exported folder to a model repository on the Hugging Face Hub.

The library takes its token from `hf auth login` or HF_TOKEN. This module neither reads nor prints it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mtrain.errors import RunError, UsageError

SECRET = re.compile(r"hf_\w+|(?<=Bearer )\S+")


def push(folder: Path, repository: str) -> str:
    """Upload `folder` to `repository` (owner/name), which is created (private) if necessary. Returns its address.

    Raises:
        UsageError: huggingface_hub is not installed, or the name is not that of a repository.
        RunError: the hub refuses the upload, or cannot be reached.
    """
    try:
        from huggingface_hub import HfApi, errors
    except ModuleNotFoundError:
        raise UsageError("--push needs huggingface_hub", remedy="pip install 'dpconvert[hub]'") from None
    hub = HfApi()
    # the base class of the HTTP library that this version of the hub uses: requests, httpx or httpx2
    transport: Any = errors.HfHubHTTPError.__bases__[0]
    try:
        hub.create_repo(repository, repo_type="model", private=True, exist_ok=True)
        commit = hub.upload_folder(repo_id=repository, repo_type="model", folder_path=str(folder))
    except errors.HFValidationError as error:
        raise UsageError(f"--push: {_redacted(error)}", expected="OWNER/NAME", found=repository) from None
    except (transport, OSError) as error:
        raise RunError(
            f"upload failed: {_redacted(error)}",
            where=repository,
            remedy="log in with `hf auth login` and try again; the exported files are kept",
        ) from None
    return str(commit.repo_url)


def _redacted(error: Exception) -> str:
    """The first line of an error, with everything that looks like a token replaced."""
    return SECRET.sub("***", str(error).strip().partition("\n")[0])
