"""The robustness index, by hand and beside a plain loop; the column of the centre; the command and its pages."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from mtrain import cli
from mtrain.data.sample_columns import ColumnRequest
from mtrain.data.task import Task, open_task
from mtrain.errors import UsageError
from mtrain.evaluation.robustness import Samples, best_k, candidates, neighbours, robustness, vote
from mtrain.evaluation.robustness_results import column_of, results
from mtrain.runs.run_folder import Run
from mtrain.scoring import bootstrap
from tests.mtrain.pools import write_task

SMALL = "shufflenet_v2_x0_5"


def angles(degrees: list[float]) -> Any:
    turned = np.deg2rad(degrees)
    return np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32)


def random_samples(n: int = 60, pull: float = 1.0) -> Samples:
    rng = np.random.default_rng(0)
    label, centre = rng.integers(0, 3, n), rng.integers(0, 2, n)
    x = rng.normal(size=(n, 5)) + rng.normal(size=(3, 5))[label] + pull * rng.normal(size=(2, 5))[centre]
    group = np.array([f"{c}-{i % 7}" for i, c in enumerate(centre)])
    return Samples(x.astype(np.float32), label, np.array(["A", "B"])[centre], group)


def test_the_index_of_four_samples_is_counted_by_hand() -> None:
    """a A, a B, b A, b B at 0, 10, 25 and 60 degrees, each a group of its own; k = 1."""
    samples = Samples(angles([0, 10, 25, 60]), np.array([0, 0, 1, 1]), np.array(list("ABAB")), np.array(list("1234")))
    found = neighbours(samples, "cpu")
    assert found.nearest[:, 0].tolist() == [1, 0, 1, 2]
    one = robustness(samples, found, 1)
    # the first, second and fourth: the same class, another centre; the third: another class and centre, not counted
    assert one["index"] == 1.0
    assert one["centres"] == [
        {"centre": "A", "samples": 2, "accuracy": 0.5, "accuracy_without": 0.5},
        {"centre": "B", "samples": 2, "accuracy": 1.0, "accuracy_without": 1.0},
    ]
    two = robustness(samples, found, 2)
    # the second nearest: b A of a A (OS), b A of a B, a A of b A (OS), a B of b B (OS)
    assert two["index"] == pytest.approx(3 / 6)
    assert one["chance"] == 0.5


def test_a_sample_of_the_same_group_is_no_neighbour() -> None:
    samples = Samples(angles([0, 1, 10, 60]), np.array([0, 0, 1, 1]), np.array(list("ABAB")), np.array(list("1134")))
    assert neighbours(samples, "cpu").nearest.tolist() == [[2, 3], [2, 3], [1, 0], [2, 1]]


@pytest.mark.parametrize("k", [1, 4, 11])
def test_the_index_is_that_of_a_plain_loop(k: int) -> None:
    samples = random_samples()
    unit = samples.features / np.linalg.norm(samples.features, axis=1, keepdims=True)
    so, os, answers, elsewhere = [], [], [], []
    for i in range(len(unit)):
        order = np.argsort(np.linalg.norm(unit - unit[i], axis=1), kind="stable")
        near = [j for j in order if samples.group[j] != samples.group[i]]
        far = [j for j in near if samples.centre[j] != samples.centre[i]]
        kinds = [(samples.label[j] == samples.label[i], samples.centre[j] == samples.centre[i]) for j in near[:k]]
        so.append(kinds.count((True, False)))
        os.append(kinds.count((False, True)))
        answers.append(np.bincount(samples.label[near[:k]]).argmax())
        elsewhere.append(np.bincount(samples.label[far[:k]]).argmax())
    found = robustness(samples, neighbours(samples, "cpu"), k)
    assert found["index"] == pytest.approx(sum(so) / (sum(so) + sum(os)))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(samples.label, answers))
    for one in found["centres"]:
        here = samples.centre == one["centre"]
        assert one["accuracy"] == pytest.approx((np.array(answers) == samples.label)[here].mean())
        assert one["accuracy_without"] == pytest.approx((np.array(elsewhere) == samples.label)[here].mean())
    groups, of = np.unique(samples.group, return_inverse=True)
    weights = bootstrap.drawn_weights(len(groups))[:, of]
    drawn = (weights @ so) / (weights @ so + weights @ os)
    assert found["interval"] == pytest.approx(np.percentile(drawn, [2.5, 97.5]))


def test_chance_is_the_index_of_all_samples_of_other_groups() -> None:
    samples = random_samples()
    same_class = samples.label[:, None] == samples.label
    same_centre = samples.centre[:, None] == samples.centre
    other = samples.group[:, None] != samples.group
    so, os = (same_class & ~same_centre & other).sum(), (~same_class & same_centre & other).sum()
    assert robustness(samples, neighbours(samples, "cpu"), 3)["chance"] == pytest.approx(so / (so + os))


def test_k_is_the_one_that_classifies_best() -> None:
    samples = random_samples()
    found = neighbours(samples, "cpu")
    choices = candidates(found.nearest.shape[1])
    assert choices[:7] == [1, 3, 5, 7, 9, 11, 21]
    scores = [balanced_accuracy_score(samples.label, vote(samples.label, found.nearest, k)) for k in choices]
    assert best_k(samples, found) == choices[int(np.argmax(scores))] == robustness(samples, found)["k"]


def test_features_that_follow_the_centre_have_a_lower_index() -> None:
    indices = [
        robustness(s, neighbours(s, "cpu"), 5)["index"] for s in (random_samples(pull=0), random_samples(pull=9))
    ]
    assert indices[0] > 0.4 > indices[1]


@pytest.mark.parametrize(
    ("labels", "centres", "said"),
    [
        ("0000", "AABB", "two classes and two centres"),
        ("0011", "AABB", "cannot be told apart"),
        ("0123", "AABB", "cannot be told apart"),
        ("0101", "1122", "robustness is not defined"),
        ("0110", "1233", "robustness is not defined"),
    ],
)
def test_what_cannot_be_measured_is_refused(labels: str, centres: str, said: str) -> None:
    groups = "1234" if centres.isalpha() else centres  # a centre of one group each has no neighbours of its own
    with pytest.raises(UsageError, match=said):
        Samples(angles([0, 1, 2, 3]), np.array(list(map(int, labels))), np.array(list(centres)), np.array(list(groups)))
    one = Samples(angles([0, 1, 2]), np.array([0, 0, 1]), np.array(list("ABA")), np.array(list("111")))
    with pytest.raises(UsageError, match="two groups"):
        neighbours(one, "cpu")


# --- the column ---


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder = tmp_path_factory.mktemp("robust") / "Centred"
    return open_task(write_task(folder, attributes=lambda _, n: {} if n == 5 else {"centre": "AB"[n // 2 % 2]}))


def test_the_column_is_an_attribute_a_part_of_a_name_or_of_a_table(task: Task, tmp_path: Path) -> None:
    rows = task.rows["val"]
    assert ColumnRequest().of(task, rows).tolist() == ["A", "A", "B", "B", "A", "", "B", "B"]
    found = ColumnRequest("part", pattern=r"val-0000(?P<part>[0-3])").of(task, rows)
    assert found.tolist() == ["0", "1", "2", "3", "", "", "", ""]
    groups = sorted(set(rows.group))
    table = tmp_path / "table.csv"
    table.write_text("group,centre\n" + "".join(f"{group},x{n % 2}\n" for n, group in enumerate(groups)))
    assert set(ColumnRequest(table=table).of(task, rows)) == {"x0", "x1"}
    text = "Centre;Group\n" + "".join(f"Münster {n % 2};{group}\n" for n, group in enumerate(groups))
    table.write_bytes(text.encode("cp1252"))  # as Excel writes it in Germany
    assert set(ColumnRequest(table=table).of(task, rows)) == {"Münster 0", "Münster 1"}


def test_a_table_or_pattern_that_names_no_sample_tells_how_samples_are_named(task: Task, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(f"key,centre\n{task.rows['val'].key[0]}.png,A\n")
    for wanted in (ColumnRequest(table=table), ColumnRequest(pattern="slide-(?P<centre>.)")):
        with pytest.raises(UsageError, match=f"no sample of Centred has a centre by --{wanted.origin[:5]}") as caught:
            wanted.of(task, task.rows["val"])
        assert f"expected keys such as {task.rows['val'].key[0]!r}, groups such as" in str(caught.value)
        assert "attributes" not in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (ColumnRequest("scanner"), "no sample of Centred has an attribute 'scanner'"),
        (ColumnRequest(pattern="("), "not a regular"),
        (ColumnRequest(pattern="x"), "no named group"),
        (ColumnRequest(table=Path(__file__)), "--table: cannot be read: test_robustness.py: line 16 has more cells"),
    ],
)
def test_a_column_that_is_not_there_is_one_line(task: Task, wanted: ColumnRequest, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        wanted.of(task, task.rows["val"])
    assert "\n" not in str(caught.value)


def test_the_command_writes_what_compare_and_the_page_show(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def mtrain(*words: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["mtrain", *map(str, words), "--workers=0", "--device=cpu"])
        cli.main()
        return capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    one = ("--backbone", SMALL, "--weights", "random", "--size", "32", "--target", task.folder)
    (result,) = json.loads(mtrain("robustness", *one, "--json"))
    assert (result["by"], result["samples"], result["sets"]) == ("centre", 30, ["train", "val"])
    assert result["notes"] == ["2 samples without a centre left out"]
    assert f"robustness index {result['index']:.4f}" in mtrain("robustness", *one)
    two = ("--backbone", f"{SMALL}=random", "--backbone", "shufflenet_v2_x1_0=random", "--size", "32")
    two += ("--target", task.folder)
    found = json.loads(mtrain("compare", *two, "--mode", "knn", "--by", "centre", "--k", "3", "--json"))
    assert [of["Centred"]["k"] for of in found["robustness"].values()] == [3, 3]
    assert "Robustness index" in Path("comparison.html").read_text()


def test_columns_of_one_name_from_two_origins_have_a_result_each(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    columns = [(), ("--pattern", r"(?P<centre>[01])$")]
    for name, shift in (("a", 0), ("b", 1)):
        Path(name).mkdir()
        keys = [key for split in ("train", "val") for key in task.rows[split].key]
        rows = "".join(f"{key},{'xy'[(n // 3 + n * shift) % 2]}\n" for n, key in enumerate(keys))
        Path(name, "t.csv").write_text("key,centre\n" + rows)
        columns.append(("--table", f"{name}/t.csv"))
    for column in columns:
        one = ("--backbone", SMALL, "--weights", "random", "--size", "32", "--target", str(task.folder), *column)
        monkeypatch.setattr(sys, "argv", ["mtrain", "robustness", *one, "--workers=0", "--device=cpu", "--k", "3"])
        cli.main()
    (folder,) = Path("runs").glob(".network-*")
    known = results(Run(folder))
    assert len(known) == 4
    assert len({column_of(one) for one in known}) == 4
    assert {column_of(one)[:16] for one in known} == {"centre", "centre of patter", "centre of table "}


def test_each_number_of_neighbours_has_a_result(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = ("--backbone", SMALL, "--weights", "random", "--size", "32", "--target", str(task.folder))
    for k in ((), ("--k", "3"), ("--k", "5"), ("--k", "3")):
        monkeypatch.setattr(sys, "argv", ["mtrain", "robustness", *one, "--workers=0", "--device=cpu", *k])
        cli.main()
    (folder,) = Path("runs").glob(".network-*")
    found = results(Run(folder))
    assert len(list((folder / "robustness").glob("*.json"))) == 3
    assert {one["k"] for one in found} >= {3, 5}
    assert len(found) == len({one["k"] for one in found})  # the chosen k is shown once, though it was also given


def test_a_column_from_two_places_at_once_is_refused() -> None:
    with pytest.raises(UsageError, match="both --pattern and --table"):
        ColumnRequest(pattern="(?P<centre>.)", table=Path("t.csv"))
