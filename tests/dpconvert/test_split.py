from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dpconvert import names
from dpconvert.card import SPLITS, Split, empty_sets
from dpconvert.errors import SourceError
from dpconvert.manifest.splits import SplitPolicy
from dpconvert.plan.split import GroupContent, assign, contents, spelt
from dpconvert.shards.index import read_index
from tests.dpconvert.conftest import Answer

SHARE = SplitPolicy(share=(0.6, 0.2, 0.2))
HASHED = SplitPolicy(share=(0.6, 0.2, 0.2), draw="hashed")
Groups = dict[str, dict[str, int]]

group_classes = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=3),
    st.dictionaries(st.sampled_from("ABCD"), st.integers(1, 40), min_size=1),
    max_size=25,
)


def groups_of(given: Mapping[str, Mapping[str, int]]) -> dict[str, GroupContent]:
    return {name: GroupContent(Counter(classes), {None}) for name, classes in given.items()}


def drawn(given: Mapping[str, Mapping[str, int]], policy: SplitPolicy = SHARE) -> dict[str, Split]:
    return assign(groups_of(given), policy, "Toy")


def test_what_groups_hold_is_counted() -> None:
    found = contents([("g", "A", None), ("g", "A", None), ("g", "B", "test"), ("h", "B", "val")])
    assert found["g"].classes == {"A": 2, "B": 1}
    assert found["g"].official == {None, "test"}
    assert found["h"].official == {"val"}


def test_named_groups_go_first_then_official_ones_then_the_rest() -> None:
    policy = SplitPolicy(test=["a"], official=True, share=(0, 1, 0))
    groups = {
        "a": GroupContent(Counter(A=1), {"train"}),
        "b": GroupContent(Counter(A=1), {"train"}),
        "c": GroupContent(Counter(A=1), {None}),
    }
    assert assign(groups, policy, "Toy") == {"a": "test", "b": "train", "c": "val"}


def test_without_shares_the_rest_is_train() -> None:
    assert drawn({"a": {"A": 1}, "b": {"A": 1}}, SplitPolicy(test=["b", "not there"])) == {"a": "train", "b": "test"}


def test_official_sets_do_not_count_where_the_policy_does_not_take_them() -> None:
    groups = {"a": GroupContent(Counter(A=1), {"test"})}
    assert assign(groups, SplitPolicy(), "Toy") == {"a": "train"}


def test_a_group_in_two_official_sets_is_an_error_unless_it_is_named() -> None:
    groups = {"p1": GroupContent(Counter(A=2), {"train", "test"})}
    with pytest.raises(
        SourceError, match=r"p1: one group in several official sets; found test, train; correct its sets, or draw"
    ):
        assign(groups, SplitPolicy(official=True), "Toy")
    assert assign(groups, SplitPolicy(official=True, val=["p1"]), "Toy") == {"p1": "val"}


def test_a_hundred_equal_groups_follow_the_shares_exactly() -> None:
    assert Counter(drawn({f"g{i}": {"A": 3, "B": 1} for i in range(100)}).values()) == {
        "train": 60,
        "val": 20,
        "test": 20,
    }


def test_shares_of_zero_get_nothing() -> None:
    assert set(drawn({f"g{i}": {"A": 1} for i in range(9)}, SplitPolicy(share=(2, 0, 1))).values()) == {
        "train",
        "test",
    }


def test_a_rare_class_comes_into_every_split() -> None:
    common = {f"g{i}": {"A": 50} for i in range(20)}
    found = drawn(common | {f"r{i}": {"A": 1, "B": 1} for i in range(3)})
    assert {found[f"r{i}"] for i in range(3)} == set(SPLITS)


def told(classes: list[str], counts: dict[Split, list[int]]) -> list[str]:
    """Of sets whose samples have one class each."""
    return empty_sets(classes, counts, {split: sum(of) for split, of in counts.items()})


def test_empty_sets_and_classes_are_reported() -> None:
    assert told(["A", "B"], {"train": [2, 1], "val": [1, 1], "test": [1, 1]}) == []
    assert told(["A", "B", "C"], {"train": [1, 1, 0], "val": [0, 0, 0], "test": [1, 0, 0]}) == [
        "no sample in val",
        "class 'C' has no sample in the whole task",
        "no sample of class 'B' in test",
    ]
    assert told(["A"], {"train": [1]}) == ["no sample in val", "no sample in test"]


@given(group_classes, st.randoms())
def test_every_group_is_in_one_set_whatever_their_order(given: Groups, random: object) -> None:
    names = sorted(given)
    random.shuffle(names)  # type: ignore[attr-defined]
    for policy in (SHARE, HASHED):
        found = drawn(given, policy)
        assert found.keys() == given.keys()
        assert set(found.values()) <= set(SPLITS)
        assert drawn({name: given[name] for name in names}, policy) == found


@given(st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.sampled_from("ABCD"), max_size=25))
def test_every_class_of_three_groups_comes_into_every_set(given: dict[str, str]) -> None:
    found = drawn({name: {label: len(name)} for name, label in given.items()})
    for label, count in Counter(given.values()).items():
        assert len({found[name] for name in given if given[name] == label}) == min(count, 3) or count < 3


def test_groups_of_several_classes_are_exchanged_where_moving_one_does_not_do() -> None:
    groups = {"a": "AB", "b": "BE", "c": "BCE", "d": "C", "e": "ACE"}
    sizes = {"a": [1, 9], "b": [5, 2], "c": [2, 2, 5], "d": [2], "e": [9, 9, 9]}
    found = drawn({name: dict(zip(groups[name], sizes[name], strict=True)) for name in groups})
    for label in "BCE":
        assert {found[name] for name in groups if label in groups[name]} == set(SPLITS)


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.just({"A": 1}), min_size=1), st.text("xyz"))
def test_hashed_sets_depend_on_the_name_alone(given: Groups, other: str) -> None:
    alone = {name: drawn({name: {"B": 7}}, HASHED)[name] for name in given}
    assert drawn(given | {other: {"A": 9}}, HASHED).items() >= alone.items()


def test_hashed_sets_follow_the_shares_on_average() -> None:
    found = Counter(drawn({f"g{i}": {"A": 1} for i in range(3000)}, HASHED).values())
    assert abs(found["train"] - 1800) < 110
    assert abs(found["val"] - 600) < 90
    none_in_val = SplitPolicy(share=(0.5, 0, 0.5), draw="hashed")
    assert set(drawn({f"g{i}": {"A": 1} for i in range(300)}, none_in_val).values()) == {"train", "test"}


def test_tasks_of_one_namespace_agree_and_others_do_not() -> None:
    groups = groups_of({f"g{i}": {"A": 1} for i in range(50)})
    assert assign(groups, HASHED, "ccipd") == assign(groups, HASHED, "ccipd")
    assert assign(groups, HASHED, "ccipd") != assign(groups, HASHED, "tupac")


HALVES = {f"p{i}": "train" for i in range(40)} | {f"q{i}": "test" for i in range(10)}


def halves(policy: SplitPolicy, seed: str = "Toy") -> dict[str, Split]:
    """A release of a training and a test set alone, under a policy."""
    groups = {name: GroupContent(Counter(A=2, B=1), {split}) for name, split in HALVES.items()}  # type: ignore[arg-type]
    return assign(groups, policy, seed)


@pytest.mark.parametrize("draw", ["balanced", "hashed"])
def test_a_validation_set_is_drawn_by_group_out_of_the_official_training_set(draw: str) -> None:
    policy = SplitPolicy.model_validate({"official": True, "val": 0.25, "draw": draw})
    found = halves(policy)
    assert {name for name, split in found.items() if split == "test"} == {f"q{i}" for i in range(10)}
    counts = Counter(found.values())
    assert counts["val"] == 10 if draw == "balanced" else 4 <= counts["val"] <= 18
    assert counts["train"] + counts["val"] == 40


def test_groups_that_are_named_for_training_stay_there() -> None:
    named = [f"p{i}" for i in range(39)]
    found = halves(SplitPolicy(official=True, val=0.5, train=named))
    assert {found[name] for name in named} == {"train"}


def test_a_validation_set_is_not_drawn_where_the_release_has_one() -> None:
    groups = {"a": GroupContent(Counter(A=1), {"train"}), "b": GroupContent(Counter(A=1), {"val"})}
    with pytest.raises(SourceError, match=r"b: the release has a validation set of its own.*leave `val = 0.15` out"):
        assign(groups, SplitPolicy(official=True, val=0.15), "Toy")


@pytest.mark.parametrize("val", [0, 1, 15, -0.1, True, "0.15"])
def test_a_share_of_the_training_set_lies_between_none_and_all(val: object) -> None:
    with pytest.raises(ValueError, match="a list of groups, or a share of the training set between 0 and 1"):
        SplitPolicy.model_validate({"official": True, "val": val})


def test_two_ways_to_a_validation_set_are_one_too_many() -> None:
    with pytest.raises(ValueError, match="both draw a validation set"):
        SplitPolicy(share=(0.7, 0.1, 0.2), val=0.15)
    assert set(drawn({f"g{i}": {"A": 1} for i in range(30)}, SplitPolicy(share=(0.8, 0, 0.2), val=0.25)).values()) == {
        "train",
        "val",
        "test",
    }


def test_named_groups_are_found_whatever_their_case_and_blanks_where_one_is_meant() -> None:
    policy = SplitPolicy(train=["p1 "], val=["P2"], test=["p3", "P4", "cafe\u0301"])
    found = spelt(policy, ["P1", "p2", "p3", "P3", "p4", "p4 ", "caf\u00e9"])
    assert (found.train, found.val, found.test) == (["P1"], ["p2"], ["p3", "P4", "caf\u00e9"])
    assert spelt(policy, ["p1 ", "P2", "p3", "P4", "cafe\u0301", "P1"]) is policy
    assert spelt(SplitPolicy(train=["A"], test=["a "]), ["a"]).named() == {"A": "train", "a ": "test"}


def test_groups_that_may_be_one_are_one_or_noted(tmp_path: Path, dpconvert: Callable[..., Answer]) -> None:
    """A column of numbers with a gap is written with decimals by pandas: patient 7 of one table is 7.0 in another."""
    patients = {"train": ["7", "7", "8", "P1", "Q2"], "test": ["9.0", "", "10.0", "p1", "Q03"]}
    for split, column in patients.items():
        lines = [f"{split}{number}.png,{'ab'[number % 2]},{patient}" for number, patient in enumerate(column)]
        (tmp_path / f"{split}.csv").write_text("\n".join(["file,label,patient", *lines, ""]))
        for number in range(len(column)):
            Image.new("RGB", (8, 8), (number, len(split), 0)).save(tmp_path / f"{split}{number}.png")
    manifest = 'task = "T"\nclasses = ["a", "b"]\nshape = "table"\n'
    manifest += "[files.table]\npattern = '(?P<split>train|test).csv'\n"
    manifest += '[layout]\nfile = "{file}"\nlabel = "label"\ngroup = "patient"\n[split.strict]\nofficial = true\n'
    (tmp_path / "my.toml").write_text(manifest)
    run = (tmp_path / "my.toml", "--source", tmp_path, "--out", tmp_path / "out", "--workers", 1)
    answer = dpconvert(*run)
    assert answer.code == 0, answer.err
    told = "with names that differ only in case, blanks or zeros before numbers, the first 'P1' and 'p1'"
    assert f"1 group may be divided between sets, {told}" in (tmp_path / "out" / "T" / "task.json").read_text()
    rows = read_index(tmp_path / "out" / "T" / "index.parquet").to_pylist()
    groups = {row["group"].partition(":")[2] for row in rows}
    assert groups == {"7", "8", "9", "10", "test1.png", "P1", "p1", "Q2", "Q03"}
    (tmp_path / "test.csv").write_text((tmp_path / "test.csv").read_text().replace("9.0", "7.0"))
    assert "7: one group in several official sets" in dpconvert(*run, "--overwrite").err


def test_names_that_people_take_for_one_have_one_key() -> None:
    assert len({names.seen(name) for name in ("P7", "P07", "P007", "p\u200b7")}) == 1
    assert len({names.seen(name) for name in ("7", "70", "0.7", "0.07", "P7-1", "P7-10", "0")}) == 7
