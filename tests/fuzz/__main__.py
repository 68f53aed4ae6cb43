"""Fuzzing from the command line: `python -m tests.fuzz [PARSER...] [--inputs N] [--seed TEXT] [--guided]`.

What a parser fails on is kept in tests/fuzz/seeds/, where the tests find it.
"""

from __future__ import annotations

import hashlib
import sys

import click

from tests.fuzz import guided, mtrain_targets, targets
from tests.fuzz.spoiling import ROOT, FaultError, spoil_apart

PARSERS = (*targets.TARGETS, *mtrain_targets.TARGETS)
OF_BYTES = targets.BYTE_LEVEL + mtrain_targets.BYTE_LEVEL
SEEDS = ROOT / "tests" / "fuzz" / "seeds"


@click.command(help=__doc__)
@click.argument("parsers", nargs=-1)
@click.option("--inputs", default=100_000, show_default=True, help="How many for each parser.")
@click.option("--seed", default="0", show_default=True, help="Another text gives other inputs.")
@click.option("--guided", "by_coverage", is_flag=True, help="Atheris chooses the inputs; parsers of bytes only.")
@click.option("--seconds", default=0, help="With --guided: at least so long.")
def main(parsers: tuple[str, ...], inputs: int, seed: str, by_coverage: bool, seconds: int) -> None:
    """Give each parser its inputs; exit status 1 where one fails."""
    failed = False
    for name in parsers or (OF_BYTES if by_coverage else PARSERS):
        try:
            told = guided.run(name, inputs, seed, seconds) if by_coverage else spoil_apart(name, inputs, seed)
        except FaultError as error:
            kept = SEEDS / name / hashlib.sha256(error.data).hexdigest()[:12]
            kept.parent.mkdir(exist_ok=True)
            kept.write_bytes(error.data)
            told, failed = f"{error}\nkept in {kept}", True
        click.echo(f"{name}: {told}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
