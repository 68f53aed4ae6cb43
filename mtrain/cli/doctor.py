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
    """Check what works on this machine: the checks of `dpconvert doctor`, torch, the GPU, two ranks that communicate.

    The exit status is 1 if something does not work.

    \b
    Example: mtrain doctor
    """
    from mtrain.doctor import checks

    examined(checks(runs), as_json=as_json)
