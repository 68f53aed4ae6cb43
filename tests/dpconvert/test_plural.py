"""Numbers with their nouns."""

from __future__ import annotations

import pytest

from dpconvert.plural import counted


@pytest.mark.parametrize(
    ("number", "noun", "told"),
    [
        (0, "shard", "0 shards"),
        (1, "shard", "1 shard"),
        (2, "shard", "2 shards"),
        (1, "class", "1 class"),
        (3, "class", "3 classes"),
        (2, "batch", "2 batches"),
        (2, "epoch", "2 epochs"),
    ],
)
def test_a_noun_is_in_the_number_of_its_count(number: int, noun: str, told: str) -> None:
    assert counted(number, noun) == told
