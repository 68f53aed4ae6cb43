"""`dpconvert doctor`."""

from __future__ import annotations

from pathlib import Path

import click

from dpconvert.cli.options import FOLDER
from dpconvert.runtime.terminal import JSON, examined


@click.command()
@click.option("--out", type=FOLDER, default=Path(), help="Folder that will hold the shards.  [default: this one]")
@JSON
def doctor(out: Path, as_json: bool) -> None:
    """Check what works on this machine: OpenSlide, codecs, disk, locks, processes.

    The exit status is 1 if something does not work.

    \b
    Example: dpconvert doctor --out shards/
    """
    from dpconvert.doctor import checks

    examined(checks(out), as_json=as_json)
