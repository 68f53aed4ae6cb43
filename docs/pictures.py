"""Draws docs/pictures: the flow of the data, and screenshots of the pages that the tutorial makes: `make pictures`.

The tutorial's commands are run in an empty folder, which takes minutes; with --at DIR, in which they were run before,
only the pictures are made. Screenshots need Chromium.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path
from typing import NamedTuple

from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.browser import Page, running  # noqa: E402  the repository's driver of a headless Chromium
from tests.documents import lines  # noqa: E402

FOLDER = Path(__file__).parent / "pictures"
TUTORIAL = Path(__file__).parent / "tutorial.md"
COLOURS = 56  # of a screenshot's palette
GAP = 16  # px around a screenshot


class Shot(NamedTuple):
    """A part of a page, from the top of one element to the bottom of another (CSS selectors)."""

    name: str
    page: str
    width: int
    first: str
    last: str


SHOTS = [
    Shot("slides", "preview/slides.html", 900, ".slides > section", ".slides > section"),
    Shot("tasks", "preview.html", 900, "#task-3", "section[aria-labelledby=task-3] ul.images"),
    Shot("report", "runs/first/report.html", 900, "h1", "section:nth-of-type(1)"),
    Shot("curves", "runs/first/report.html", 900, "section:nth-of-type(3)", "section:nth-of-type(3)"),
]

# --- the flow

WIDTH, HEIGHT, BOX, ROW = 1040, 250, 176, 92
STEPS = [  # (title, lines); between them, the command that leads from one to the next
    ("Source files", ["slides, images, tables,", "annotations of 20 formats"]),
    ("Shards", ["one WebDataset task each:", "images, labels, splits"]),
    ("Shared network", ["trained on all tasks", "except those left out"]),
    ("Scores", ["on the left-out tasks,", "beside ImageNet's"]),
]
COMMANDS = ["dpconvert", "mtrain fit", "mtrain transfer"]
SIDE = [  # what else is made of a step: (step, command, result)
    (1, "dpconvert verify, audit, preview", "checks, leaks, a page of the tasks"),
    (2, "mtrain export, predict", "weights for other tools, heat maps"),
    (3, "mtrain report, sweep, select", "pages, and the best settings"),
]
INKS = {
    "light": {"ink": "#1b1f24", "soft": "#5c6570", "line": "#3f51b5", "fill": "#f2f4fc"},
    "dark": {"ink": "#e6e9ed", "soft": "#a9b3bf", "line": "#8c9eff", "fill": "#232838"},
}


def flow(ink: dict[str, str]) -> str:
    """The flow of the data as SVG."""
    step = (WIDTH - BOX) / (len(STEPS) - 1)
    parts = [_box(number * step, title, text, ink) for number, (title, text) in enumerate(STEPS)]
    for number, command in enumerate(COMMANDS):
        left, right = number * step + BOX + 4, (number + 1) * step - 4
        parts += [_arrow(left, 58, right, 58, ink), _text((left + right) / 2, 48, command, ink["line"], 11, mono=True)]
    for number, command, result in SIDE:
        middle = number * step + BOX / 2
        middle = min(middle, WIDTH - 110)
        down = _arrow(number * step + BOX / 2, ROW + 8, number * step + BOX / 2, 162, ink)
        command_text = _text(middle, 184, command, ink["line"], 11, mono=True)
        parts += [down, command_text, _text(middle, 204, result, ink["soft"], 12)]
    style = "font-family='system-ui, sans-serif' text-anchor='middle'"
    label = "Source files become shards, shards train a shared network, the network is scored on left-out tasks"
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='-2 0 {WIDTH + 4} {HEIGHT - 30}' role='img' {style}>"
        f"<title>{label}</title>{''.join(parts)}</svg>\n"
    )


def _box(left: float, title: str, text: list[str], ink: dict[str, str]) -> str:
    rectangle = f"<rect x='{left:g}' y='20' width='{BOX}' height='{ROW - 16}' rx='8' fill='{ink['fill']}' "
    middle = left + BOX / 2
    rows = [_text(middle, 68 + 16 * number, line, ink["soft"], 12) for number, line in enumerate(text)]
    return f"{rectangle}stroke='{ink['line']}'/>" + _text(middle, 46, title, ink["ink"], 15, bold=True) + "".join(rows)


def _arrow(x: float, y: float, to_x: float, to_y: float, ink: dict[str, str]) -> str:
    head = f"M{to_x - 6:g} {to_y - 4:g}L{to_x:g} {to_y:g}L{to_x - 6:g} {to_y + 4:g}"
    if x == to_x:
        head = f"M{to_x - 4:g} {to_y - 6:g}L{to_x:g} {to_y:g}L{to_x + 4:g} {to_y - 6:g}"
    return f"<path d='M{x:g} {y:g}L{to_x:g} {to_y:g}{head}' fill='none' stroke='{ink['line']}' stroke-width='1.5'/>"


def _text(x: float, y: float, text: str, colour: str, size: int, *, bold: bool = False, mono: bool = False) -> str:
    more = " font-weight='600'" * bold + " font-family='ui-monospace, monospace'" * mono
    return f"<text x='{x:g}' y='{y:g}' fill='{colour}' font-size='{size}'{more}>{escape(text)}</text>"


# --- screenshots


def follow(tutorial: Path, folder: Path) -> None:
    """Run every command that the tutorial shows with a prompt in a folder."""
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for line in lines(tutorial):
        if line.run:
            print(f"$ {line.text}", flush=True)  # noqa: T201
            done = subprocess.run(line.text, shell=True, cwd=folder, env=os.environ | {"PATH": paths}, check=False)
            if done.returncode != line.status:
                sys.exit(f"exit status {done.returncode}, and the tutorial says {line.status}")


def shoot(page: Page, shot: Shot) -> Image.Image:
    """A part of an open page."""
    top, bottom = (
        page.run(f"document.querySelector('{selector}').getBoundingClientRect().{side} + scrollY")
        for selector, side in ((shot.first, "top"), (shot.last, "bottom"))
    )
    area = {"x": 0, "y": max(top - GAP, 0), "width": shot.width, "height": bottom - top + 2 * GAP, "scale": 1}
    found = page.ask("Page.captureScreenshot", clip=area, captureBeyondViewport=True, format="png")
    return Image.open(io.BytesIO(base64.b64decode(found["data"]))).convert("RGB")


def screenshots(folder: Path) -> None:
    """Draw the parts of the pages that the tutorial made in a folder, for light and dark readers."""
    with running() as browser:
        for shot in SHOTS:
            for scheme in INKS:
                with browser.page(folder / shot.page, width=shot.width, dark=scheme == "dark") as page:
                    image = shoot(page, shot).quantize(COLOURS, method=Image.Quantize.FASTOCTREE)
                    image.save(FOLDER / f"{shot.name}-{scheme}.png", optimize=True)


def main() -> None:
    """Write all files of docs/pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--at", type=Path, metavar="DIR", help="folder in which the tutorial's commands were run")
    at = parser.parse_args().at
    for scheme, ink in INKS.items():
        (FOLDER / f"flow-{scheme}.svg").write_text(flow(ink))
    with tempfile.TemporaryDirectory() as temporary:
        if at is None:
            follow(TUTORIAL, Path(temporary))
        screenshots(at or Path(temporary))


if __name__ == "__main__":
    main()
