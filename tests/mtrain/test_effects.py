"""Small effects never look like none, wherever they are written."""

from __future__ import annotations

import pytest

from mtrain.report.pages.influence_page import lines
from mtrain.report.pages.page import points, span
from mtrain.scoring.effects import effect, effects


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123, "+0.0123"),
        (-0.0012, "-0.0012"),
        (0.00099, "+0.00099"),
        (1e-5, "+1e-05"),
        (-1.234e-7, "-1.2e-07"),
        (0.0, "+0.0000"),
        (-0.0, "+0.0000"),
    ],
)
def test_a_small_effect_has_two_significant_figures(value: float, text: str) -> None:
    assert effect(value) == text


def test_intervals_and_points_of_pages_have_them_too() -> None:
    assert effects((-1e-5, 0.5)) == " [-1e-05, +0.5000]"
    assert effects(None) == ""
    assert points(1e-5) == "+0.001"
    assert points(-0.1234) == "−12.34"
    assert points(0.0) == "+0.00"
    assert span((-1e-5, 0.0123), signed=True) == " [−0.001, +1.2]"


def test_the_lines_of_influence_show_small_effects() -> None:
    row = {"task": "A", "theta": 1e-5, "interval": (-2e-6, 3e-5), "sign": "unclear", "cosine": 0.003, "single": {}}
    content = {
        "target": "T",
        "loss": 0.5,
        "sources": [row],
        "leave_out": [],
        "best": [],
        "subsets": 1,
        "cost": {"seconds": 1, "forward": 1, "backward": 1, "regressions": 1},
        "verification": None,
        "notes": [],
    }
    assert "  A: theta +1e-05 [-2e-06, +3e-05], unclear; cosine of gradients +0.003" in lines(content)
