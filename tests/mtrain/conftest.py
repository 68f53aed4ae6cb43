"""What holds for every test of mtrain."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_process_is_left_running() -> Iterator[None]:
    """Workers of a loader let no signal end them: one that is left keeps the program from ending."""
    before = multiprocessing.active_children()
    yield
    assert multiprocessing.active_children() == before
