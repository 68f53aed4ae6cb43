"""Whatever bytes a parser is given, it returns or raises an error of ours, and soon."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpconvert.errors import UserError
from tests.fuzz.mutation import mutated
from tests.fuzz.targets import BYTE_LEVEL, TARGETS

ROOT = Path(__file__).resolve().parents[2]
SEEDS = Path(__file__).parent / "seeds"
FEW, MANY = 150, int(os.environ.get("FUZZ_INPUTS", "100000"))
SECONDS = 30.0  # for one input: machines of tests are shared


def check(name: str, data: bytes) -> None:
    """Parse; other exceptions than ours fail the test, with the bytes in it."""
    begun = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with suppress(UserError):
                TARGETS[name].parse(data)
        except BaseException as error:
            error.add_note(f"{name}: {data!r}")
            raise
    assert time.monotonic() - begun < SECONDS, f"{name}: {data!r}"


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_understood(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].parse(seed)


@pytest.mark.parametrize("path", sorted(SEEDS.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_once_crashed_does_not(path: Path) -> None:
    check(path.parent.name, path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_spoilt_inputs_are_read_or_refused(name: str) -> None:
    spoil(name, FEW)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(name: str, data: bytes) -> None:
    check(name, data)
    check(name, TARGETS[name].seeds[0][:20] + data)


@pytest.mark.stress
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", TARGETS)
def test_a_hundred_thousand_spoilt_inputs_are_read_or_refused(name: str) -> None:
    spoil(name, MANY)


@pytest.mark.stress
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_guided_inputs_are_read_or_refused(name: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(TARGETS[name].seeds):
        (corpus / str(number)).write_bytes(seed)
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.atheris_harness",
        name,
        f"-runs={MANY}",
        "-max_len=4096",
        "-rss_limit_mb=3000",
    ]
    command += [f"-artifact_prefix={tmp_path}/", "-timeout=60", str(corpus)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stderr[-3000:]


def spoil(name: str, count: int) -> None:
    target, chance = TARGETS[name], random.Random(name)
    for _ in range(count):
        check(name, mutated(target.seeds, target.words, chance))
