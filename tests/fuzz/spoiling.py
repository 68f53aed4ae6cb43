"""Spoilt inputs for a parser, in this process or in one of its own, which a parser may kill or keep for ever.

In a process of its own: `python -m tests.fuzz.spoiling PARSER COUNT SEED FILE`; the input in hand is in FILE.
"""

from __future__ import annotations

import faulthandler
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from dpconvert.errors import UserError
from dpconvert.runtime.limits import Limits, limited, reading
from tests.fuzz.mutation import mutated
from tests.fuzz.targets import MEMORY, TARGETS, Target
from tests.memory import held, peak

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 30  # for one input: machines of tests are shared
MIB = 1024  # that one input may take


@dataclass(frozen=True)
class Outcome:
    """How many inputs there were, how many were read (the others were refused), the seconds of all and of the worst.

    mib: by how much the process grew, from before the first input to its peak.
    """

    inputs: int
    read: int
    seconds: float
    slowest: float
    mib: int

    def __str__(self) -> str:
        share = 100 * self.read / max(self.inputs, 1)
        return (
            f"{self.inputs} inputs, {share:.0f}% read, {self.seconds:.0f} s, "
            f"the slowest {1000 * self.slowest:.0f} ms, {self.mib} MiB over its start"
        )


class FaultError(AssertionError):
    """A parser that died, or raised what is not ours; `data` is what it was given."""

    def __init__(self, told: str, data: bytes) -> None:
        super().__init__(f"{told}\n{data[:3000]!r}")
        self.data = data


def target_of(name: str) -> Target:
    """The parser of that name; those of mtrain bring torch along, which takes seconds."""
    if name in TARGETS:
        return TARGETS[name]
    from tests.fuzz import mtrain_targets

    return mtrain_targets.TARGETS[name]


def check(name: str, data: bytes) -> bool:
    """Whether the parser reads it; other exceptions than ours leave, with the bytes in them."""
    parse = target_of(name).parse
    begun, before, read = time.monotonic(), peak(), True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with limited(Limits(memory=MIB << 20)), reading("input"):  # as a conversion does
                parse(data)
        except UserError:
            read = False
        except BaseException as error:
            error.add_note(f"{name}: {data!r}")
            raise
    assert time.monotonic() - begun < SECONDS, f"{name}: {data!r}"
    assert peak() - before < MIB, f"{name}: {data!r}"
    return read


def inputs(name: str, count: int, seed: str) -> Iterator[bytes]:
    """So many spoilt inputs; the same seed, the same ones."""
    target, chance = target_of(name), random.Random(f"{name} {seed}")
    for _ in range(count):
        yield mutated(target.seeds, target.words, chance)


def spoil(name: str, count: int, seed: str, hand: Path | None = None) -> Outcome:
    """Give a parser spoilt inputs. With `hand` each is written there first, and a process that takes long is killed."""
    target_of(name)  # what it imports is no part of what it takes
    begun, before, read, slowest = time.monotonic(), held(), 0, 0.0
    for data in inputs(name, count, seed):
        if hand is not None:
            hand.write_bytes(data)
            signal.alarm(2 * SECONDS)
        now = time.monotonic()
        read += check(name, data)
        slowest = max(slowest, time.monotonic() - now)
    return Outcome(count, read, time.monotonic() - begun, slowest, peak() - before)


def spoil_apart(name: str, count: int, seed: str) -> Outcome:
    """The same in a process of its own.

    Raises:
        FaultError: it raised what is not ours, took too long, or died.
    """
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        hand = Path(folder) / "input"
        command = [sys.executable, "-m", "tests.fuzz.spoiling", name, str(count), seed, str(hand)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")
        if done.returncode:
            told = f"{name}: exit status {done.returncode}: {done.stderr[-2000:]}"
            raise FaultError(told, hand.read_bytes() if hand.exists() else b"")
    return Outcome(**json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    faulthandler.enable()
    faulthandler.register(signal.SIGALRM, chain=True)
    sys.stdout.write(json.dumps(asdict(spoil(sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])))) + "\n")
