"""A web server on this machine that holds files, and misbehaves as it is told."""

from __future__ import annotations

import hashlib
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Site:
    """What the server holds and how it behaves; `asked` is what it was asked, as (path, Range header)."""

    files: dict[str, bytes] = field(default_factory=dict)
    cut_after: list[int] = field(default_factory=list)  # bytes that each answer in turn may send; then all
    statuses: list[int] = field(default_factory=list)  # what it answers in turn instead of the file
    ranges: bool = True
    versions: bool = True
    announces: bool = True
    silent_after: int | None = None
    deaf: bool = False  # to If-Range: a part of another version is sent as if it were asked for
    headers: list[dict[str, str]] = field(default_factory=list)  # of each answer in turn; '' takes one away
    most: int | None = None  # bytes of an answer to a range, however many are asked for
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    redirects: dict[str, tuple[int, str]] = field(default_factory=dict)  # path -> status, path of a signed address
    expire: int = 0  # how many of the next signed addresses have expired when they are used
    signatures: dict[str, bool] = field(default_factory=dict)  # signature -> whether it may still be used
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, values: list[int]) -> int | None:
        with self.lock:
            return values.pop(0) if values else None


class Handler(BaseHTTPRequestHandler):
    """Answers GET; a subclass's `site` says with what."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    site: Site

    def do_GET(self) -> None:
        site, wanted = self.site, self.headers.get("Range")
        path = self.path.partition("?")[0]
        site.asked.append((self.path, wanted))
        status = site.take(site.statuses)
        data = site.files.get(path)
        if status is not None or data is None:
            self.reply(status or 404, b"<html>no</html>", {"Content-Type": "text/html"})
        else:
            self.send_file(data, wanted)

    def send_file(self, data: bytes, wanted: str | None) -> None:
        site, tag = self.site, f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        found = re.fullmatch(r"bytes=(\d+)-", wanted or "")
        same = site.deaf or self.headers.get("If-Range", tag) == tag
        start = int(found[1]) if found and site.ranges and same else 0
        headers = {"ETag": tag} if site.versions else {}
        if start and start >= len(data):
            self.reply(416, b"", headers | {"Content-Range": f"bytes */{len(data)}"})
            return
        end = len(data) if site.most is None or not start else min(start + site.most, len(data))
        if start:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        self.reply(206 if start else 200, data[start:end], headers, cut=site.take(site.cut_after))

    def reply(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        with self.site.lock:
            headers |= self.site.headers.pop(0) if self.site.headers else {}
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        if self.site.announces:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = cut is not None or not self.site.announces
        silent = self.site.silent_after
        self.wfile.write(body[: cut if silent is None else silent])
        if silent is not None:
            self.wfile.flush()
            self.site.silent_after = None
            time.sleep(1.0)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


class Host(Handler):
    """Redirects to S3 as Dataverse (303), figshare and Mendeley (302) do: each time to an address for one use."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        signature = query.partition("X-Amz-Signature=")[2]
        if path in self.site.redirects:
            status, target = self.site.redirects[path]
            self.site.asked.append((self.path, self.headers.get("Range")))
            self.reply(status, b"", {"Location": f"{self.site.url}{target}?X-Amz-Signature={self.sign()}"})
        elif signature and not self.site.signatures.pop(signature, False):
            self.site.asked.append((self.path, self.headers.get("Range")))
            self.reply(403, b"<Error><Code>AccessDenied</Code></Error>", {"Content-Type": "application/xml"})
        else:
            super().do_GET()

    def sign(self) -> str:
        with self.site.lock:
            signature = f"{len(self.site.signatures)}-{len(self.site.asked)}"
            self.site.signatures[signature] = self.site.expire <= 0
            self.site.expire -= 1
        return signature


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that leave in the middle are what is tested."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextmanager
def serving(site: Site, kind: type[Handler] = Handler) -> Iterator[Site]:
    """The site, served while the block lasts."""
    handler = type("Served", (kind,), {"site": site})
    with _Server(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        site.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
