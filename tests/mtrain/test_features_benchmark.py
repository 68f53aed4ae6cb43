"""The rates that the benchmark of features states, of batches that arrive at known times."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import Mock

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "features" / "compare.py"


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("features_compare", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "path", list(sys.path))  # the benchmark adds its folder
    monkeypatch.setitem(sys.modules, "features_compare", module)  # its dataclasses look for their module
    monkeypatch.setitem(sys.modules, "generated", Mock())
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("sizes", "whole", "steady", "half"),
    [
        ([64, 64, 64, 8], 50, (64 + 64 + 8) / 3, 8),
        ([64, 64, 64, 64, 4], 52, (3 * 64 + 4) / 4, (64 + 4) / 2),
        ([64, 6], 35, 6, 0),
        ([30], 30, 0, 0),
    ],
)
def test_images_of_a_time_are_those_that_were_made_in_it(
    compare: ModuleType, monkeypatch: pytest.MonkeyPatch, sizes: list[int], whole: float, steady: float, half: float
) -> None:
    """A batch arrives each second. What is complete when the time begins was made before."""
    ticks = itertools.count()
    monkeypatch.setattr(compare, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    monkeypatch.setattr(compare, "Images", lambda _sample: None)
    monkeypatch.setattr(compare, "OrderedBatches", lambda *_given: sizes)
    made = [SimpleNamespace(labels=[0] * size) for size in sizes]
    monkeypatch.setattr(compare, "batches", lambda *_given, **_named: iter(made))
    pace = compare.decoded([], 32, 1)
    assert (pace.whole, pace.steady, pace.half) == pytest.approx((whole, steady, half))
