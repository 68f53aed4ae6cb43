"""Storage on loopback: the APIs of S3 (moto's server) and of Google Cloud Storage, from processes of their own, a plain
web server, and a proxy before any of them that delays, cuts or refuses answers when told to.
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

BUCKET = "bucket"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIATESTKEY", "AWS_SECRET_ACCESS_KEY": "sEcReTtEsT", "AWS_DEFAULT_REGION": "us-east-1"}

STATUS = {"fail": 503, "deny": 403, "unknown": 401}


@dataclass
class Faults:
    """What happens to the next answers to GET for a path that ends in `suffix`, and what was asked for so far."""

    suffix: str = ".tar"
    planned: list[str] = field(default_factory=list)  # "fail", "cut", "slow", "deny" or "unknown"
    asked: list[str] = field(default_factory=list)
    slow_seconds: float = 0.0

    def next(self, path: str) -> str:
        plain = path.partition("?")[0]
        if not plain.endswith(self.suffix):
            return ""
        self.asked.append(plain)
        return self.planned.pop(0) if self.planned else ""


@contextmanager
def s3_server() -> Iterator[int]:
    """The port of moto's S3 server, with a bucket in it."""
    with _program(lambda port: ["moto.server", "-H", "127.0.0.1", "-p", str(port)]) as port:
        _request(port, "PUT", f"/{BUCKET}", b"")
        yield port


@contextmanager
def gcs_server() -> Iterator[int]:
    """The port of a server of Google Cloud Storage's JSON API, with a bucket in it."""
    words = ["gcp_storage_emulator", "start", "--host", "127.0.0.1", "--in-memory", "--default-bucket", BUCKET]
    with _program(lambda port: [*words, "--port", str(port)]) as port:
        yield port


def upload(port: int, folder: Path, prefix: str) -> None:
    """Put every file under `folder` into the bucket of an S3 server."""
    for name, content in _files(folder, prefix):
        _request(port, "PUT", f"/{BUCKET}/{name}", content)


def upload_to_gcs(port: int, folder: Path, prefix: str) -> None:
    """Put every file under `folder` into the bucket of a server of Google Cloud Storage."""
    for name, content in _files(folder, prefix):
        query = urlencode({"uploadType": "media", "name": name})
        _request(port, "POST", f"/upload/storage/v1/b/{BUCKET}/o?{query}", content)


@contextmanager
def web_server(folder: Path) -> Iterator[int]:
    """The port of a plain web server on a folder."""
    with _served(partial(_Quiet, directory=str(folder))) as port:
        yield port


@contextmanager
def proxy(to: int, faults: Faults) -> Iterator[int]:
    """The port of a proxy before the server at `to`."""

    class Handler(_Forward):
        target, plan = to, faults

    with _served(Handler) as port:
        yield port


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


class _Forward(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    target: int
    plan: Faults

    def do_GET(self) -> None:
        fault = self.plan.next(self.path)
        if fault in STATUS:
            self.send_response(STATUS[fault])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault == "slow":
            time.sleep(self.plan.slow_seconds)
        self._forward(cut=fault == "cut")

    def do_HEAD(self) -> None:
        self._forward()

    def _forward(self, *, cut: bool = False) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        connection = http.client.HTTPConnection("127.0.0.1", self.target, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def _served(handler: Any) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that were killed
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _request(port: int, method: str, path: str, body: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {
        "Authorization": f"AWS4-HMAC-SHA256 Credential={KEYS['AWS_ACCESS_KEY_ID']}/20260101/us-east-1/s3/aws4_request"
    }
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    assert answer.status == 200, (answer.status, answer.read())
    connection.close()


def _files(folder: Path, prefix: str) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield f"{prefix}/{path.relative_to(folder)}", path.read_bytes()


@contextmanager
def _program(words: Callable[[int], list[str]]) -> Iterator[int]:
    """The port at which a Python module that is a server answers."""
    port = _free_port()
    environment = os.environ | KEYS | {"PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", *words(port)]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, server)
        yield port
    finally:
        server.terminate()
        server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert server.poll() is None, "the server has stopped"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the server does not answer")
