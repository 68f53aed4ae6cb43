"""`mtrain doctor`."""

from __future__ import annotations

from pathlib import Path

import click

from dpconvert.runtime.terminal import JSON, examined
from mtrain.cli.options import RUNS


@click.command()
@RUNS
@JSON
def doctor(runs: Path, as_json: bool) -> None:
    """Say what works on this machine: as `dpconvert doctor`, and torch, GPU, two ranks that talk. Exit status 1 if not.

    \b
    Example: mtrain doctor
    """
    from mtrain.doctor import checks

    examined(checks(runs), as_json=as_json)
