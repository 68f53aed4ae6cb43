"""What holds for every test of mtrain."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator

import pytest

from mtrain.backbones import downloads
from mtrain.disk import documents
from mtrain.train.reporting import memory
from tests.small_networks import use_small_networks
from tests.small_programs import draw_figures_once, without_estimates

use_small_networks()  # before fixtures of modules
draw_figures_once()


@pytest.fixture(autouse=True)
def no_process_is_left_running() -> Iterator[None]:
    """Workers of a loader let no signal end them: one that is left keeps the program from ending."""
    before = multiprocessing.active_children()
    yield
    assert multiprocessing.active_children() == before


@pytest.fixture(autouse=True)
def no_file_of_another_test_is_told() -> None:
    """A program says at its end which files without a digest were read: those of its own process, and test."""
    documents.unchecked()


@pytest.fixture(autouse=True)
def downloads_of_another_test_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_failed", {})


@pytest.fixture(autouse=True)
def memory_is_not_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules whose tests are about estimates have another fixture of this name."""
    without_estimates(monkeypatch.setattr)


@pytest.fixture(autouse=True)
def memory_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has imported everything has thousands of mappings, all of which the system reads for one number.

    Modules whose tests are about that number have another fixture of this name.
    """
    monkeypatch.setattr(memory, "_host", lambda: 2.0**30)
