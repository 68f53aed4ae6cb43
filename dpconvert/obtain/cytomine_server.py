"""The REST interface of a Cytomine server: signed requests, paged lists, files.

It is spoken directly: the official client (cytomine-python-client 4.3) pins single versions of shapely, requests and
urllib3 that are not this project's, and does not go on with what was cut. Servers sign a request's method, content type
and date together with its path, newer ones without; both are tried.
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


@dataclass(frozen=True)
class Keys:
    """Of an account on the server; never shown, never stored."""

    public: str = field(repr=False)
    private: str = field(repr=False)

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] = os.environ) -> Keys:
        """Of the variables CYTOMINE_PUBLIC_KEY and CYTOMINE_PRIVATE_KEY.

        Raises:
            UsageError: one is missing.
        """
        missing = [name for name in (PUBLIC, PRIVATE) if not variables.get(name, "").strip()]
        if missing:
            raise UsageError(
                f"{' and '.join(missing)} not set",
                remedy="put the keys that your account's page on the server shows into these environment variables",
            )
        return cls(variables[PUBLIC].strip(), variables[PRIVATE].strip())


@dataclass(frozen=True)
class Signature(requests.auth.AuthBase):
    """Signs each request anew."""

    keys: Keys
    with_path: bool = True

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        date = request.headers["Date"] = formatdate(usegmt=True)
        token = f"{request.method}\n\n\n{date}"  # no body, so neither digest nor type of one
        token += f"\n{request.path_url}" if self.with_path else ""
        digest = hmac.new(self.keys.private.encode(), token.encode(), hashlib.sha1).digest()
        request.headers["Authorization"] = f"CYTOMINE {self.keys.public}:{base64.b64encode(digest).decode()}"
        return request


class Server:
    """The interface of one server, with one downloader for each thread."""

    def __init__(self, address: str, keys: Keys, report: Reporter, patience: Patience) -> None:
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
        """Find out how this server wants to be signed to.

        Raises:
            FetchError: it refuses the keys, has no such project, or does not answer.
        """
        for signature in (self.signature, replace(self.signature, with_path=False)):
            answer = self._ask(f"/api/project/{project}.json", {}, signature)
            if answer.status_code not in (401, 403):
                self.signature = signature
                self._accept(answer)
                return
        raise FetchError(
            f"the server refuses these keys, or this project to them ({answer.status_code})",
            where=f"{self.address}/api/project/{project}.json",
            remedy=f"see to {PUBLIC} and {PRIVATE}, and whether the account is a member of the project",
        )

    def listing(self, path: str, **query: str) -> list[dict[str, Any]]:
        """All pages of a list, in order of id.

        Raises:
            FetchError: refused, cut, or no list.
        """
        found: dict[int, dict[str, Any]] = {}
        while True:
            answer = self._ask(path, {**query, "max": str(PAGE), "offset": str(len(found))}, self.signature)
            self._accept(answer)
            entries, total = _page(answer)
            before = len(found)
            found |= {entry["id"]: entry for entry in entries}
            if len(found) >= total or not entries:
                break
            if len(found) == before:
                raise FetchError("a page of the list came twice", where=answer.url, remedy="run it again")
        if len(found) < total:
            raise FetchError("the list is cut", where=f"{self.address}{path}", expected=total, found=len(found))
        return [found[number] for number in sorted(found)]

    def bring(self, path: str, file: Path) -> bool:
        """Download to a file; False if it was there."""
        return self._downloader().fetch(Remote(f"{self.address}{path}", auth=self.signature), file)

    def _ask(self, path: str, query: dict[str, str], signature: Signature) -> requests.Response:
        """The answer, whatever it is; a server that is busy or silent is asked again."""
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
                raise FetchError(f"not a usable address: {error}", where=f"{self.address}{path}") from None
            if answer.status_code not in AGAIN:
                return answer
            last = str(answer.status_code)
        raise FetchError(
            f"the server does not answer ({last})",
            where=f"{self.address}{path}",
            remedy="see to --host, or run it again",
        )

    def _accept(self, answer: requests.Response) -> None:
        if answer.status_code != 200:
            what = "no such project" if answer.status_code == 404 else "the server refuses"
            raise FetchError(f"{what} ({answer.status_code})", where=answer.url, remedy="see to --host and --project")

    def _downloader(self) -> Downloader:
        if not hasattr(self._local, "downloader"):
            self._local.downloader = Downloader(Reporter(quiet=True), requests.Session(), self.patience, self.stop)
            self._all.append(self._local.downloader)
        downloader: Downloader = self._local.downloader
        return downloader


def _page(answer: requests.Response) -> tuple[list[dict[str, Any]], int]:
    """The entries of a page, and how many there are in all."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    entries = body.get("collection") if isinstance(body, dict) else body
    if not isinstance(entries, list) or not all(isinstance(e, dict) and isinstance(e.get("id"), int) for e in entries):
        raise FetchError("no list but something else came", where=answer.url, remedy="see to --host")
    total = body.get("size") if isinstance(body, dict) else None
    return entries, total if isinstance(total, int) else len(entries)
