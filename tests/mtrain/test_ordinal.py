"""Tasks of ordered classes, from the manifest to transfer, evaluation tables and comparison, by quadratic kappa."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from sklearn.metrics import cohen_kappa_score

from dpconvert import card as cards
from dpconvert.cli import group as dpconvert
from dpconvert.errors import ShardError
from dpconvert.kappa import quadratic_kappa
from dpconvert.manifest import catalog
from mtrain.cli import group as mtrain
from mtrain.disk.documents import write_document
from mtrain.errors import RunError
from mtrain.evaluation.paper_tables import Evaluation
from mtrain.runs.run_folder import Run
from mtrain.scoring import bootstrap, metrics
from mtrain.sweep.cell_records import Score
from mtrain.transfers.results import read_result, results
from tests.dpconvert.scenes import manifest

MANIFEST = """
task = "Grades"
kind = "ordinal"
shape = "folders"
classes = ["low", "middle", "high"]
[files.images]
pattern = '(?P<class>\\w+)/(?P<name>\\w+)\\.png$'
[split.strict]
share = [0.5, 0.5, 0]
"""


def test_kappa_by_hand() -> None:
    """Truth 0 0 1 2, found 0 1 1 2: O has one cell of weight 1. E is the product of the margins (2, 1, 1) and (1, 2, 1)
    over 4; the sum of w E is (2 x 2 + 2 x 1 x 4 + 1 x 1 + 1 x 1 + 1 x 1 x 4 + 1 x 2) / 4 = 5: kappa is 1 - 1 / 5.
    """
    table = metrics.confusion(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2]), 3)
    assert float(quadratic_kappa(table)) == pytest.approx(0.8)
    assert float(quadratic_kappa(np.diag([3, 0, 2]))) == 1
    assert np.isnan(quadratic_kappa(np.array([[3, 2], [0, 0]]))), "one true class"


def test_kappa_is_that_of_scikit_learn_also_under_the_weights_of_the_bootstrap() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=80)
    decisions = rng.standard_normal((80, 4)) + 2 * np.exp(-np.abs(np.arange(4) - labels[:, None]))
    expected = cohen_kappa_score(labels, decisions.argmax(1), weights="quadratic")
    assert metrics.score("quadratic_kappa", labels, decisions) == pytest.approx(expected)
    assert dict(metrics.all_scores(labels, decisions, 4, ordered=True))["quadratic_kappa"] == pytest.approx(expected)
    assert "quadratic_kappa" not in dict(metrics.all_scores(labels, decisions, 4))
    group, weights = np.arange(80) % 9, rng.integers(0, 3, size=(5, 9)).astype(float)
    found = dict(bootstrap.weighted_scores(labels, decisions, group, weights, 4, ordered=True))["quadratic_kappa"]
    for row, values in enumerate(weights):
        times = values[group].astype(int)
        drawn = np.repeat(labels, times), np.repeat(decisions.argmax(1), times)
        assert found[row] == pytest.approx(cohen_kappa_score(*drawn, weights="quadratic"))


def test_an_ordinal_task_needs_its_classes_in_order() -> None:
    for classes in ([], ["low", "high"]):
        with pytest.raises(ValueError, match="kind 'ordinal' needs at least three `classes`, listed in their order"):
            manifest(kind="ordinal", classes=classes)


@pytest.mark.parametrize("name", ["gleason-arvaniti", "sicapv2"])
def test_gleason_grades_are_ordinal(name: str) -> None:
    known = catalog.find(name)
    assert cards.metric_of(known.kind, known.classes) == "quadratic_kappa"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with source/ and shards/: grey levels in three grades."""
    folder, rng = tmp_path_factory.mktemp("ordinal"), np.random.default_rng(0)
    for number in range(48):
        grade = ("low", "middle", "high")[number % 3]
        path = folder / "source" / grade / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.normal(60 + 60 * (number % 3), 30, (32, 32, 3))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
    (folder / "grades.toml").write_text(MANIFEST)
    arguments = [str(folder / "grades.toml"), "--source", str(folder / "source"), "--out", str(folder / "shards")]
    result = CliRunner().invoke(dpconvert, [*arguments, "--workers", "1", "-q"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder


def test_the_card_states_order_and_metric_and_older_programs_refuse_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.loads((folder / "shards" / "Grades" / "task.json").read_text())
    assert (body["schema"], body["kind"], body["metric"]) == (2, "ordinal", "quadratic_kappa")
    monkeypatch.setattr(cards, "SCHEMA", 1)
    with pytest.raises(ShardError, match="written by a newer version"):
        cards.load(folder / "shards" / "Grades")


def test_the_preview_names_the_metric(folder: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(dpconvert, ["preview", str(folder / "shards"), "--out", str(tmp_path / "p.html"), "-q"])
    assert "quadratic kappa on 24 validation images" in result.output
    assert "<dt>score</dt><dd>quadratic kappa</dd>" in (tmp_path / "p.html").read_text()


def test_a_transfer_scores_by_kappa_with_an_interval(folder: Path) -> None:
    arguments = ["transfer", "--mode", "knn", "--backbone", "shufflenet_v2_x0_5", "--weights", "random", "--size", "32"]
    where = ["--target", str(folder / "shards" / "Grades"), "--runs", str(folder / "runs"), "--workers", "0"]
    result = CliRunner().invoke(mtrain, [*arguments, *where, "--device", "cpu", "--json"], catch_exceptions=False)
    (found,) = json.loads(result.stdout)
    assert found["metric"] == "quadratic_kappa"
    assert found["score"] == found["scores"]["quadratic_kappa"] > 0.3
    low, high = found["intervals"]["quadratic_kappa"]
    assert low <= found["score"] <= high
    (path,) = folder.glob("**/transfer/*.npz")
    with np.load(path) as arrays:
        expected = cohen_kappa_score(arrays["label"], arrays["decisions"].argmax(1), weights="quadratic")
    assert found["score"] == pytest.approx(expected)


@pytest.mark.parametrize("score", [-1.0, -0.2])
def test_a_score_below_chance_can_be_read_again(score: float, tmp_path: Path) -> None:
    known = {
        "task": "Grades",
        "metric": "quadratic_kappa",
        "mode": "svm",
        "source": "imagenet",
        "backbone": "x",
        "seed": 0,
        "set": "test",
        "score": score,
        "n_train": 1,
    }
    assert Evaluation.model_validate(known).score == score
    assert Score.model_validate({"metric": "quadratic_kappa", "set": "val", "score": score}).score == score
    write_document(
        tmp_path / "transfer" / "Grades-svm-run.json", known | {"weights": "run", "identity": {}, "notes": []}
    )
    (found,) = results(Run(tmp_path))
    assert found["score"] == score
    assert read_result(tmp_path / "transfer" / "Grades-svm-run.json") == found


def test_no_other_metric_is_negative(tmp_path: Path) -> None:
    known = {
        "task": "Grades",
        "metric": "accuracy",
        "mode": "svm",
        "weights": "run",
        "identity": {},
        "notes": [],
        "set": "val",
        "score": -0.2,
    }
    write_document(tmp_path / "transfer" / "Grades-svm-run.json", known)
    with pytest.raises(RunError, match=r"not a score; expected 0 to 1; found -0\.2"):
        results(Run(tmp_path))
