"""The pages in a real browser: whole on a phone, in the dark, on paper, and without a mouse."""

from __future__ import annotations

import itertools
import json
import math
import os
from pathlib import Path

import pytest
from filelock import FileLock

from mtrain.evaluation.paper_tables import published
from mtrain.report.pages.page import template
from mtrain.report.pages.run_page import write_report
from mtrain.report.pages.sweep_page import write_sweep_report
from mtrain.sweep.combination import Combination
from tests.browser import Browser, browser
from tests.mtrain.sweeps import write_sweep
from tests.mtrain.test_figures import write_evaluation
from tests.mtrain.test_report import a_run, a_transfer

__all__ = ["browser"]  # a fixture
NETWORKS = ("mtdp_densenet121", "resnet50")
GRID = [
    Combination(network, lr, tau, warmup)
    for network in NETWORKS
    for lr in (1e-3, 1e-4, 1e-5, 1e-6)
    for tau in (1.0, 5.0, 10.0)
    for warmup in (True, False)
]
SETS = (
    ("CellInclusion", "ProliferativePattern"),
    ("Breast1", "Breast2"),
    ("MouseLba",),
    ("HumanLba",),
    ("Necrosis",),
    ("Lung",),
    ("Glomeruli",),
    ("BoneMarrow",),
)
CONTRAST = """(() => {
  const light = rgb => rgb.map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const parts = text => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const behind = e => { for (; e; e = e.parentElement) {
    const c = parts(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c.slice(0, 3); }
    return [255, 255, 255]; };
  return [...document.querySelectorAll('h1, h2, h3, p, th, td, caption, figcaption, summary, svg text')].filter(e =>
    e.textContent.trim()).map(e => {
      const style = getComputedStyle(e), own = parts(e.namespaceURI.endsWith('svg') ? style.fill : style.color);
      const [a, b] = [light(own.slice(0, 3)), light(behind(e))].sort((x, y) => y - x);
      return [(a + .05) / (b + .05), e.tagName + ': ' + e.textContent.trim().slice(0, 30)];
    }).filter(([ratio]) => ratio < 4.5).map(([ratio, text]) => ratio.toFixed(2) + ' ' + text);
})()"""


@pytest.fixture(scope="module")
def sweep_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a sweep as large as the paper's, drawn once for all processes of a test run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "page-of-a-sweep"
    page = folder / "report" / "report.html"
    with FileLock(f"{folder}.lock"):
        if not page.exists():
            assert write_large_sweep(folder) == page
    return page


def write_large_sweep(folder: Path) -> Path:
    """With the paper's scores on the test sets and on BreaKHis."""

    def score(combination: Combination, task: str, seed: int) -> float:
        wave = math.sin(len(task) * 7 + seed * 3 + GRID.index(combination))
        return 0.8 + 0.02 * math.log10(combination.lr) + 0.02 * combination.warmup + 0.03 * wave

    store = write_sweep(folder / "sweeps" / "paper", score, combinations=GRID, sets=SETS, seeds=(0, 1))
    number = 0
    for network, rows in published().items():
        for row in rows:
            for column, found in row.scores.items():
                mode, _, source = column.partition("-")
                for seed, shift in enumerate((-1, 1) if found.std else (0,)):
                    number += 1
                    about = {"mode": mode, "source": source or "multitask", "backbone": network, "seed": seed}
                    about |= {"task": row.task, "metric": row.metric, "n_train": row.size, "run": None}
                    about |= {"score": (found.mean + shift * found.std / math.sqrt(2)) / 100}
                    write_evaluation(folder / "evaluations", number, **about)
    for network in NETWORKS:
        for source in ("imagenet", "multitask"):
            number += 1
            folds = [{"fold": fold, "patient_accuracy": 0.8 + 0.02 * fold} for fold in range(1, 6)]
            told = {"magnifications": {name: {"folds": folds} for name in ("40X", "100X", "200X", "400X")}}
            about = {"task": "BreakHis", "set": "folds", "score": None, "source": source, "backbone": network}
            write_evaluation(folder / "evaluations", number, **about, **told)
    return write_sweep_report(store, folder / "evaluations", folder / "report" / "report.html", paper=True)


@pytest.fixture(scope="module")
def run_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with names and notes as long as they come."""
    folder = tmp_path_factory.mktemp("run")
    long = "ProliferativePatternOfTheThyroid"
    weights = {"run": 0.875, "imagenet": 0.8125, f"/data/weights/{long}-densenet121.pth": 0.7}
    cases = [(task, *one) for task in ("Gamma", long) for one in weights.items()]
    found = [a_transfer(name, score, task=task, notes=["only 3 groups: 3 folds"]) for task, name, score in cases]
    run = a_run(folder, transfers=found, name="densenet121-without-CellInclusion-ProliferativePattern-001")
    events = [
        json.dumps({"event": "step", "iteration": i, "loss": 2 / i, "tasks": {long: 1 / i}}) for i in range(41, 60)
    ]
    with (run.path / "log.jsonl").open("a") as file:
        file.writelines(f"{event}\n" for event in events)
    return write_report(run, folder / "report.html")[0]


@pytest.fixture(params=["run", "sweep"])
def page_path(request: pytest.FixtureRequest, run_page: Path, sweep_page: Path) -> Path:
    return {"run": run_page, "sweep": sweep_page}[request.param]


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_fails_and_nothing_reaches_beyond_the_window(browser: Browser, page_path: Path, width: int) -> None:
    with browser.page(page_path, width=width) as page:
        assert page.errors == []
        assert page.overflow() == []
        assert page.broken_images() == []
        # letters of figures stay readable: SVG text as it is on the screen
        smallest = page.run(
            "Math.min(...[...document.querySelectorAll('svg text')].map(e => e.getBoundingClientRect().height))"
        )
        assert smallest >= 8


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_what_is_behind_it_by_day_and_night(browser: Browser, page_path: Path, dark: bool) -> None:
    with browser.page(page_path, dark=dark) as page:
        background = page.run("getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
        assert page.run(CONTRAST) == []


def test_a_sheet_of_paper_cuts_no_table_and_shows_what_is_folded(
    browser: Browser, page_path: Path, tmp_path: Path
) -> None:
    with browser.page(page_path) as page:
        assert page.cut_in_print() == []
        page.ask("Emulation.setEmulatedMedia", media="print")
        assert page.run("[...document.querySelectorAll('details dl')].every(e => e.checkVisibility())")
        assert page.pdf(tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_those_who_do_not_see_or_point_find_their_way(browser: Browser, page_path: Path) -> None:
    with browser.page(page_path) as page:
        assert page.unnamed() == []
        assert page.run("document.documentElement.lang") == "en"
        assert page.run("[document.querySelectorAll('main').length, document.querySelectorAll('h1').length]") == [1, 1]
        levels = page.run("[...document.querySelectorAll('h1, h2, h3')].map(e => +e.tagName[1])")
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
        assert page.run("[...document.querySelectorAll('table')].every(t => t.caption && t.querySelector('th[scope]'))")
        # what scrolls sideways can be scrolled with the keys, and says what it is
        scrolls = (
            "[...document.querySelectorAll('.scroll')].filter(e => e.tabIndex !== 0 || !e.getAttribute('aria-label'))"
        )
        assert page.run(f"{scrolls}.length") == 0
        reached = page.run("document.querySelectorAll('.scroll, summary, a').length")
        assert len({*page.tab(reached)}) >= min(reached, 2)
        assert page.run("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_negative_scores_and_differences_have_the_same_minus_sign() -> None:
    """A correlation may be negative, as a difference may."""
    filters = template("page.html").environment.filters
    assert [filters[name](-0.0105) for name in ("percent", "points")] == ["\u22121.05", "\u22121.05"]
