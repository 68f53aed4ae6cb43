"""Numbers of the command line: help shows N for whole ones and X for others; "nan" lies in no range."""

from __future__ import annotations

import math
from typing import Any

import click

WHOLE, NUMBER = "N", "X"


class WholeRange(click.IntRange):
    """A range of whole numbers, which help shows as N."""

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return WHOLE


class FiniteRange(click.FloatRange):
    """A range of numbers that refuses "nan", which no comparison with its ends does, and "inf"."""

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return NUMBER

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or fail as click does."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number
