"""Whatever bytes a parser is given, it returns or raises an error of ours, and soon."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import guided, mtrain_targets, targets
from tests.fuzz.mutation import repeated
from tests.fuzz.spoiling import check, spoil, spoil_apart

TARGETS = targets.TARGETS | mtrain_targets.TARGETS
SEEDS = Path(__file__).parent / "seeds"
FEW, MANY = 150, int(os.environ.get("FUZZ_INPUTS", "100000"))


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_understood(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].parse(seed)


@pytest.mark.parametrize("path", sorted(SEEDS.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_once_crashed_does_not(path: Path) -> None:
    check(path.parent.name, path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_spoilt_inputs_are_read_or_refused(name: str) -> None:
    spoil(name, FEW, "0")


@pytest.mark.parametrize("name", TARGETS)
def test_pieces_that_come_again_and_again_are_read_or_refused_soon(name: str) -> None:
    for data in itertools.islice(repeated(TARGETS[name].seeds, TARGETS[name].words, 1 << 17), 0, None, 5):
        check(name, data)


@pytest.mark.stress
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", TARGETS)
def test_all_pieces_that_come_again_and_again_are_read_or_refused_soon(name: str) -> None:
    for data in repeated(TARGETS[name].seeds, TARGETS[name].words, 400_000):
        check(name, data)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(name: str, data: bytes) -> None:
    check(name, data)
    check(name, TARGETS[name].seeds[0][:20] + data)


def test_the_memory_of_a_parser_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(targets.TARGETS, "hungry", targets.Target(lambda _: b"x" * (100 << 20), [b"a"]))
    assert spoil("hungry", 1, "0").mib >= 90


@pytest.mark.stress
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", TARGETS)
def test_a_hundred_thousand_spoilt_inputs_are_read_or_refused(name: str) -> None:
    assert spoil_apart(name, MANY, "0").inputs == MANY


@pytest.mark.stress
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", targets.BYTE_LEVEL + mtrain_targets.BYTE_LEVEL)
def test_guided_inputs_are_read_or_refused(name: str) -> None:
    pytest.importorskip("atheris")
    guided.run(name, MANY, "0")
