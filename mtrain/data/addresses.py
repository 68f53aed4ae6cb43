"""Where shards are: URLs of object stores and web servers, and local folders."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from mtrain.errors import UsageError

SCHEMES = {"s3": "s3", "gs": "gcs", "http": "http", "https": "http"}  # scheme -> extra that reads it
ADDRESS = re.compile(rf"({'|'.join(SCHEMES)}):/+(?=[^/])")  # pathlib turns two slashes into one
CREDENTIALS = {
    "s3": "set up credentials as for the `aws` command, or FSSPEC_S3_ANON=true for a public bucket",
    "gcs": "run `gcloud auth application-default login`, or set FSSPEC_GCS_TOKEN=anon for a public bucket",
    "http": "put the credentials into ~/.netrc",
}


def url_of(place: str | Path) -> str | None:
    """`place` as a URL without a trailing slash; None if it is a local folder.

    Raises:
        UsageError: the URL contains credentials, which would get into logs and run folders.
    """
    text = str(place)
    match = ADDRESS.match(text)
    if match is None:
        return None
    parts = urlsplit(f"{match[1]}://{text[match.end() :]}")
    if parts.username is not None or parts.query or parts.fragment:
        host = parts.netloc.rpartition("@")[2]
        plain = urlunsplit((parts.scheme, host, parts.path, "", ""))
        raise UsageError(
            "the address of shards may not contain a user, password or query: it is written to logs and run folders",
            where=plain,
            remedy=CREDENTIALS[SCHEMES[parts.scheme]],
        )
    return urlunsplit(parts).rstrip("/")


def absolute(place: str | Path) -> str:
    """A URL unchanged; a folder as an absolute path."""
    return url_of(place) or str(Path(place).absolute())
