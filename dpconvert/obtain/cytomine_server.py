"""The REST interface of a Cytomine server: signed requests, paged lists, files.

The official client (cytomine-python-client 4.3) is not used: it pins versions of shapely, requests and urllib3 that
conflict with ours, and it does not resume downloads. Some servers expect a signature of a request's method, content
type, date and path, newer ones of the same without the path; both are tried.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from pathlib import Path
from types import TracebackType
from typing import Any

import requests

from dpconvert.errors import FetchError, UsageError
from dpconvert.obtain.download import AGAIN, Downloader, Patience, Remote
from dpconvert.runtime.progress import Reporter

PUBLIC, PRIVATE = "CYTOMINE_PUBLIC_KEY", "CYTOMINE_PRIVATE_KEY"
PAGE = 2000
RUN_AGAIN = "run the same command again"


@dataclass(frozen=True)
class ApiKeys:
    """The keys of an account on the server. They are never printed or stored."""

    public: str = field(repr=False)
    private: str = field(repr=False)

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] = os.environ) -> ApiKeys:
        """The keys in the variables CYTOMINE_PUBLIC_KEY and CYTOMINE_PRIVATE_KEY.

        Raises:
            UsageError: a variable is not set.
        """
        missing = [name for name in (PUBLIC, PRIVATE) if not variables.get(name, "").strip()]
        if missing:
            raise UsageError(
                f"{' and '.join(missing)} not set",
                remedy="set these environment variables to the keys shown on your account page on the server",
            )
        return cls(variables[PUBLIC].strip(), variables[PRIVATE].strip())


@dataclass(frozen=True)
class Signature(requests.auth.AuthBase):
    """Signs each request."""

    keys: ApiKeys
    with_path: bool = True

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        date = request.headers["Date"] = formatdate(usegmt=True)
        token = f"{request.method}\n\n\n{date}"  # there is no body, so its digest and type are empty
        token += f"\n{request.path_url}" if self.with_path else ""
        digest = hmac.new(self.keys.private.encode(), token.encode(), hashlib.sha1).digest()
        request.headers["Authorization"] = f"CYTOMINE {self.keys.public}:{base64.b64encode(digest).decode()}"
        return request


class Server:
    """The interface of one server, with one downloader for each thread."""

    def __init__(self, address: str, keys: ApiKeys, report: Reporter, patience: Patience) -> None:
        self.address, self.report, self.patience = address, report, patience
        self.signature = Signature(keys)
        self.stop = threading.Event()
        self._local, self._all = threading.local(), list[Downloader]()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for downloader in self._all:
            downloader.session.close()

    def connect(self, project: int) -> None:
        """Find out which signature this server accepts.

        Raises:
            FetchError: the server refuses the keys, has no such project, or does not respond.
        """
        for signature in (self.signature, replace(self.signature, with_path=False)):
            answer = self._get(f"/api/project/{project}.json", {}, signature)
            if answer.status_code not in (401, 403):
                self.signature = signature
                self._accept(answer)
                return
        raise FetchError(
            f"access denied (HTTP {answer.status_code})",
            where=f"{self.address}/api/project/{project}.json",
            remedy=f"check {PUBLIC} and {PRIVATE}, and that the account is a member of the project",
        )

    def listing(self, path: str, **query: str) -> list[dict[str, Any]]:
        """All entries of a paged list, sorted by id.

        Raises:
            FetchError: access is denied, or the response is not a list or an incomplete one.
        """
        by_id: dict[int, dict[str, Any]] = {}
        while True:
            answer = self._get(path, {**query, "max": str(PAGE), "offset": str(len(by_id))}, self.signature)
            self._accept(answer)
            entries, total = _page(answer)
            before = len(by_id)
            by_id |= {entry["id"]: entry for entry in entries}
            if len(by_id) >= total or not entries:
                break
            if len(by_id) == before:
                raise FetchError("the server sent a page of the list twice", where=answer.url, remedy=RUN_AGAIN)
        if len(by_id) < total:
            raise FetchError(
                "incomplete list", where=f"{self.address}{path}", expected=total, found=len(by_id), remedy=RUN_AGAIN
            )
        return [by_id[number] for number in sorted(by_id)]

    def bring(self, path: str, file: Path) -> bool:
        """Download a file. Returns False if it already exists."""
        return self._downloader().fetch(Remote(f"{self.address}{path}", auth=self.signature), file)

    def _get(self, path: str, query: dict[str, str], signature: Signature) -> requests.Response:
        """The response, whatever its status. A busy or silent server is retried."""
        last = ""
        for tries in range(self.patience.tries):
            self.stop.wait(self.patience.wait * tries)
            try:
                answer = self._downloader().session.get(
                    f"{self.address}{path}",
                    params=query,
                    auth=signature,
                    headers={"Accept": "application/json", "X-Requested-With": "XMLHttpRequest"},
                    timeout=(self.patience.connect, self.patience.silence),
                )
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                last = type(error).__name__
                continue
            except requests.RequestException as error:
                raise FetchError(
                    f"invalid address: {error}", where=f"{self.address}{path}", remedy="check --host"
                ) from None
            if answer.status_code not in AGAIN:
                return answer
            last = str(answer.status_code)
        raise FetchError(
            f"the server does not respond ({last})",
            where=f"{self.address}{path}",
            remedy="check --host, or run the same command again later",
        )

    def _accept(self, answer: requests.Response) -> None:
        if answer.status_code != 200:
            what = "no such project" if answer.status_code == 404 else "the server refuses the request"
            remedy = "check --host and --project"
            raise FetchError(f"{what} (HTTP {answer.status_code})", where=answer.url, remedy=remedy)

    def _downloader(self) -> Downloader:
        if not hasattr(self._local, "downloader"):
            self._local.downloader = Downloader(Reporter(quiet=True), requests.Session(), self.patience, self.stop)
            self._all.append(self._local.downloader)
        downloader: Downloader = self._local.downloader
        return downloader


def _page(answer: requests.Response) -> tuple[list[dict[str, Any]], int]:
    """The entries of a page, and the total number of entries."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    entries = body.get("collection") if isinstance(body, dict) else body
    if not isinstance(entries, list) or not all(isinstance(e, dict) and isinstance(e.get("id"), int) for e in entries):
        raise FetchError("the response is not a list", where=answer.url, remedy="check --host")
    total = body.get("size") if isinstance(body, dict) else None
    return entries, total if isinstance(total, int) else len(entries)
