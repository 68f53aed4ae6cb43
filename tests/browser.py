"""A headless Chromium for the tests of pages: what a person would see, measured.

    def test_the_page(browser: Browser) -> None:
        with browser.page(path, width=390) as page:
            assert page.errors == []
            assert page.overflow() == []

It is driven through a pair of pipes by the DevTools protocol; nothing but local files is opened. Tests that ask for the
fixture are skipped, with the reason, where there is no Chromium.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 60.0
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--mute-audio",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
A4 = (718, 1047)  # CSS pixels of the sheet less Chromium's margins of a centimetre
# elements that reach beyond the page's right edge, unless an ancestor scrolls or clips them
OVERFLOW = """[...document.body.querySelectorAll('*')].filter(e => {
  const box = e.getBoundingClientRect();
  if (!box.width || box.right <= document.documentElement.clientWidth + 1) return false;
  for (let up = e.parentElement; up; up = up.parentElement)
    if (getComputedStyle(up).overflowX !== 'visible' && up !== document.body && up !== document.documentElement)
      return false;
  return true;
}).map(e => e.tagName + ' ' + (e.className.baseVal ?? e.className) + ' ' + e.textContent.trim().slice(0, 40))"""
# contents wider than their box although nothing lets one scroll to it: cut on paper
CUT = """[...document.body.querySelectorAll('table, .scroll, figure, svg')].filter(e =>
  e.getBoundingClientRect().right > document.documentElement.clientWidth + 1 || e.scrollWidth > e.clientWidth + 1 &&
  e.tagName !== 'svg').map(e => e.tagName + ' ' + (e.className.baseVal ?? e.className))"""
UNNAMED = """[...document.querySelectorAll('img:not([alt]), svg:not([aria-label]):not([aria-hidden]), input, button, a'
  )].filter(e => !(e.tagName === 'INPUT' ? e.labels.length || e.ariaLabel || e.type === 'hidden'
    : ['BUTTON', 'A'].includes(e.tagName) && (e.textContent.trim() || e.ariaLabel)))
  .map(e => e.outerHTML.slice(0, 80))"""


class Page:
    """An open page; `errors` are those of its console, and what it could not load."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser, self.session = browser, session
        self.errors: list[str] = []

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to a command of the DevTools protocol."""
        return self.browser.ask(method, self.session, **parameters)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def overflow(self) -> list[str]:
        """What reaches beyond the right edge, so that the page can be scrolled sideways."""
        sideways = self.run("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        found: list[str] = self.run(OVERFLOW)
        return found or (["the page itself"] if sideways else [])

    def broken_images(self) -> list[str]:
        """Images without pixels."""
        found: list[str] = self.run(
            "[...document.images].forEach(i => { i.loading = 'eager' });"  # else one out of sight is never decoded
            "Promise.all([...document.images].map(i => i.decode().catch(() => 0))).then(() => "
            "[...document.images].filter(i => !i.naturalWidth).map(i => i.src.slice(0, 80)))"
        )
        return found

    def unnamed(self) -> list[str]:
        """Images, links, buttons and fields without a name for those who cannot see them."""
        found: list[str] = self.run(UNNAMED)
        return found

    def tab(self, times: int) -> list[str]:
        """Press Tab so often; the element that has the focus after each, as its tag and text."""
        found = []
        for _ in range(times):
            for kind in ("keyDown", "keyUp"):
                self.ask("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
            found.append(self.run("document.activeElement.tagName + ' ' + document.activeElement.textContent.trim()"))
        return found

    def screenshot(self, path: Path) -> Path:
        """The whole page as a PNG."""
        found = self.ask("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(found["data"]))
        return path

    def cut_in_print(self) -> list[str]:
        """Tables and figures that are wider than an A4 sheet."""
        self.ask("Emulation.setEmulatedMedia", media="print")
        self._size(*A4)
        found: list[str] = self.run(CUT)
        self.ask("Emulation.setEmulatedMedia", media="")
        return found

    def pdf(self, path: Path) -> Path:
        """The page as it is printed, on A4."""
        found = self.ask("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=True)
        path.write_bytes(base64.b64decode(found["data"]))
        return path

    def _size(self, width: int, height: int) -> None:
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)


class Browser:
    """One Chromium process."""

    def __init__(self, program: str, home: Path) -> None:
        down_read, down_write = os.pipe()
        self.up_read, up_write = os.pipe()
        self.write_end, self.buffer, self.numbers = down_write, b"", itertools.count(1)
        self.pages: dict[str, Page] = {}
        self.loaded: set[str] = set()
        ends = f'exec "$0" "$@" 3<&{down_read} 4>&{up_write}'  # where it expects them
        self.process = subprocess.Popen(
            ["bash", "-c", ends, program, *FLAGS, f"--user-data-dir={home}", "about:blank"],
            pass_fds=(down_read, up_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(home)},
            start_new_session=True,
        )
        os.close(down_read)
        os.close(up_write)

    def ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer, noting what happens meanwhile."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self.write_end, json.dumps(message).encode() + b"\0")
        while (said := self._next()).get("id") != number:
            self._note(said)
        assert "error" not in said, said["error"]
        return dict(said["result"])

    @contextlib.contextmanager
    def page(self, path: Path, *, width: int = 1280, height: int = 800, dark: bool = False) -> Iterator[Page]:
        """A file, opened in a window of that size."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.ask(f"{domain}.enable")
        page._size(width, height)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        page.ask("Emulation.setEmulatedMedia", features=scheme)
        self.loaded.discard(session)
        page.ask("Page.navigate", url=path.resolve().as_uri())
        while session not in self.loaded:
            self._note(self._next())
        page.run("document.fonts.ready.then(() => 1)")
        yield page
        self.ask("Target.closeTarget", targetId=target)

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError, AssertionError, TimeoutError):
            self.ask("Browser.close")
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.write_end)
        os.close(self.up_read)

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + SECONDS
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.up_read], [], [], max(until - time.monotonic(), 0))
            if not ready:
                raise TimeoutError("the browser says nothing")
            chunk = os.read(self.up_read, 1 << 20)
            if not chunk:
                raise OSError("the browser has gone")
            self.buffer += chunk
        said, _, self.buffer = self.buffer.partition(b"\0")
        return dict(json.loads(said))

    def _note(self, said: dict[str, Any]) -> None:
        method, told = said.get("method"), said.get("params", {})
        page = self.pages.get(said.get("sessionId", ""))
        if page is None:
            return
        if method == "Page.loadEventFired":
            self.loaded.add(page.session)
        elif method == "Runtime.exceptionThrown":
            page.errors.append(told["exceptionDetails"]["text"])
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            page.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            page.errors.append(told["entry"]["text"])
        elif method == "Network.loadingFailed":
            page.errors.append(f"not loaded: {told['errorText']}")


@contextlib.contextmanager
def running() -> Iterator[Browser]:
    """A browser for as long as the block lasts; skips the test where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        browser = Browser(program, Path(home))
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for all tests of a module, which imports this fixture by name."""
    with running() as found:
        yield found
