"""The templates of the pages, and how they write numbers and names."""

from __future__ import annotations

import re
from collections.abc import Callable

import jinja2
from markupsafe import Markup, escape

from mtrain.evaluation.comparing.paired import Interval
from mtrain.evaluation.robustness_results import column_of
from mtrain.scoring.effects import effect

UNDIVIDED = 18  # characters of a name that stays in one line


def percent(score: float | None) -> str:
    """0.9012 -> 90.12, as in the paper's tables; a dash if there is no score."""
    return "–" if score is None or score != score else f"{100 * score:.2f}"


def points(gain: float | None) -> str:
    """A difference of scores in percentage points, with its sign."""
    return "–" if gain is None or gain != gain else minus(effect(100 * gain, 2, 1))


def span(interval: Interval | None, *, signed: bool = False) -> str:
    """An interval in percent, after a space: ' [80.1, 92.3]'; nothing where there is none."""
    if interval is None:
        return ""
    low, high = (effect(100 * edge, 1, 1) if signed else f"{100 * edge:.1f}" for edge in interval)
    return minus(f" [{low}, {high}]")


def minus(number: str) -> str:
    """A written number with a minus sign in place of a hyphen, as pages have it; lines for a terminal have hyphens."""
    return number.replace("-", "−")


def with_minus(written: Callable[..., str]) -> Callable[..., str]:
    """A filter for pages: what `written` returns, with minus signs."""
    return lambda *given, **named: minus(written(*given, **named))


def breakable(name: str) -> Markup:
    """A long name, which may be divided between its words but nowhere else."""
    if len(name) <= UNDIVIDED:
        return escape(name)
    return Markup("<wbr>").join(re.split(r"(?<=[a-z])(?=[A-Z0-9])|(?<=[_/.-])", name))


def prose(text: str) -> Markup:
    """A note as it is printed at the terminal, with text between backquotes as code."""
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in enumerate(text.split("`"))
    )


def template(name: str, **filters: Callable[..., object]) -> jinja2.Template:
    """A template of this package, with the filters of this module and those given.

    `bracketed` is the same as `span`, which some pages define anew.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mtrain.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    known = {
        "percent": with_minus(percent),
        "points": points,
        "span": span,
        "bracketed": span,
        "breakable": breakable,
        "minus": minus,
        "prose": prose,
    }
    environment.filters |= known | {"column": column_of} | filters
    return environment.get_template(name)
