"""Labels in doubt: the rule beside that of cleanlab, and errors planted in images, up to the next conversion."""

from __future__ import annotations

import csv
import json
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from dpconvert.cli import group as dpconvert
from mtrain.cli import group as mtrain
from mtrain.data.task import has_frames, open_task
from mtrain.errors import UsageError
from mtrain.report.pages import labels_page
from mtrain.runs.run_folder import Run
from mtrain.runs.seen import Seen
from mtrain.transfers.label_errors import check_independent, suspects
from mtrain.transfers.pretrained import Pretrained
from tests.mtrain.pools import write_task
from tests.small_networks import whole_networks

MANIFEST = """
task = "Toy"
shape = "folders"
classes = ["pink", "blue"]
[group]
kind = "patient"
[files.images]
pattern = '(?P<class>\\w+)/(?P<name>(?P<group>p\\d+)_\\d+)\\.png$'
[split.strict]
share = [0.7, 0.3, 0]
draw = "hashed"
"""
COLOURS = {"pink": (230, 150, 190), "blue": (90, 80, 190)}


def example(seed: int, count: int, classes: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels, a share of them drawn anew, and probabilities that tell the truth more or less."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=count)
    logits = rng.standard_normal((count, classes)) + 2.0 * (np.arange(classes) == truth[:, None])
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return np.where(rng.random(count) < noise, rng.integers(classes, size=count), truth), probabilities


@pytest.mark.parametrize(
    ("drawn", "found"),
    [
        ((0, 60, 3, 0.2), [42, 33, 49]),
        ((1, 40, 2, 0.15), [25]),
        ((2, 80, 5, 0.3), [43, 21, 9, 39, 47, 59, 70, 65, 18, 2, 22, 50, 66, 38, 56, 7, 74, 60, 63, 71, 6]),
    ],
)
def test_the_same_labels_are_in_doubt_as_with_cleanlab(drawn: tuple[int, int, int, float], found: list[int]) -> None:
    """Recorded with cleanlab 2.9.0: find_label_issues(labels, p, filter_by="confident_learning",
    return_indices_ranked_by="self_confidence")."""
    assert suspects(*example(*drawn))[0].tolist() == found


def test_the_rule_by_hand() -> None:
    """Thresholds are 0.7 and 0.6 (class 1: the mean of 0.9, 0.8 and 0.1); class 2 has no sample, so none counts as it.

    Sample 4 is labelled 1, but its 0.9 of class 0 is above 0.7. Sample 5 has another most probable class, of which it
    is not sure enough.
    """
    probabilities = np.array(
        [
            [0.9, 0.1, 0.0],
            [0.8, 0.1, 0.1],
            [0.1, 0.9, 0.0],
            [0.1, 0.8, 0.1],
            [0.9, 0.1, 0.0],
            [0.4, 0.5, 0.1],
        ]
    )
    which, found = suspects(np.array([0, 0, 1, 1, 1, 0]), probabilities)
    assert (which.tolist(), found.tolist()) == ([4], [0])


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A folder with source/, shards/, toy.toml and labels/; and the names of the images with a wrong label."""
    folder, rng = tmp_path_factory.mktemp("labels"), np.random.default_rng(0)
    planted = set()
    for number in range(96):
        truth = ("pink", "blue")[number % 2]
        name, given = f"p{number // 4:02d}_{number:02d}", truth
        if number % 12 == 5:
            given = "pink" if truth == "blue" else "blue"
            planted.add(name)
        path = folder / "source" / given / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.clip(rng.normal(COLOURS[truth], 25, (32, 32, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    (folder / "toy.toml").write_text(MANIFEST)
    converted(folder)
    (folder / "audit.json").write_text(audit_of(folder, "--json"))
    return folder, planted


def converted(folder: Path, manifest: str = "toy.toml", out: str = "shards") -> str:
    arguments = [str(folder / manifest), "--source", str(folder / "source"), "--out", str(folder / out)]
    result = CliRunner().invoke(dpconvert, [*arguments, "--workers", "1"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def audit_of(folder: Path, *options: str) -> str:
    arguments = [
        "audit-labels",
        "--backbone",
        "shufflenet_v2_x0_5",
        "--weights",
        "random",
        "--size",
        "32",
        "--workers",
        "0",
        "--task",
        str(folder / "shards" / "Toy"),
        "--out",
        str(folder / "labels"),
        "--device",
        "cpu",
        "--runs",
        str(folder / "runs"),
    ]
    with whole_networks():  # random features tell more errors from the rest, the more layers they went through
        result = CliRunner().invoke(mtrain, [*arguments, *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels" / "Toy.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_planted_label_errors_are_found(audited: tuple[Path, set[str]]) -> None:
    folder, planted = audited
    found = {row["sample"] for row in table(folder)}
    assert len(found & planted) / len(planted) >= 0.75, "recall"
    assert len(found & planted) / len(found) >= 0.75, "precision"


def test_the_page_shows_the_images_with_both_classes(audited: tuple[Path, set[str]]) -> None:
    page = (audited[0] / "labels" / "Toy.html").read_text()
    rows = table(audited[0])
    assert page.count("data:image/jpeg;base64,") == len(rows) > 0
    assert re.search(rf"<strong>{rows[0]['given']}</strong>.*<strong>{rows[0]['predicted']}</strong>", page)


def test_the_erratum_pasted_into_the_manifest_leaves_these_samples_out(audited: tuple[Path, set[str]]) -> None:
    folder, _ = audited
    text = (folder / "labels" / "Toy.toml").read_text()
    (folder / "pasted.toml").write_text(MANIFEST.replace('"Toy"', '"Pasted"') + text)
    listed = set(tomllib.loads(text)["errata"][0]["samples"])
    output = converted(folder, "pasted.toml", "other")
    assert "not used" not in output
    kept = [key for rows in open_task(folder / "other" / "Pasted").rows.values() for key in rows.key]
    every = [key for rows in open_task(folder / "shards" / "Toy").rows.values() for key in rows.key]
    assert set(every) - set(kept) == listed
    assert len(kept) == len(every) - len(listed)


def test_json_names_every_doubt(audited: tuple[Path, set[str]]) -> None:
    (result,) = json.loads((audited[0] / "audit.json").read_text())
    first = result["doubts"][0]
    assert first["given"] != first["predicted"]
    assert first["p_given"] == min(doubt["p_given"] for doubt in result["doubts"])
    assert result["samples"] == 96


def test_patches_are_listed_with_their_frame(tmp_path: Path) -> None:
    """Images of four patches, one of them of the other colour: pasted, it is left out and its neighbours stay."""
    rng, folder = np.random.default_rng(1), tmp_path
    for number in range(6):
        truth = ("pink", "blue")[number % 2]
        pixels = np.clip(rng.normal(COLOURS[truth], 25, (64, 64, 3)), 0, 255).astype(np.uint8)
        if number == 0:
            pixels[:32, 32:] = np.clip(rng.normal(COLOURS["blue"], 25, (32, 32, 3)), 0, 255)
        path = folder / "source" / truth / f"p{number}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    rule = '\n[rule]\ntype = "tiles"\nsize = 32\n'
    (folder / "toy.toml").write_text(MANIFEST + rule)
    converted(folder)
    assert has_frames(open_task(folder / "shards" / "Toy"))
    audit_of(folder)
    text = (folder / "labels" / "Toy.toml").read_text()
    listed = tomllib.loads(text)["errata"][0]["samples"]
    assert "p0_0#xywh=32,0,32,32" in listed
    (folder / "pasted.toml").write_text(MANIFEST + rule + text)
    converted(folder, "pasted.toml", "other")
    assert open_task(folder / "other" / "Toy").card.samples() == 24 - len(listed)


def test_weights_that_were_trained_on_the_task_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = open_task(write_task(tmp_path / "Alpha"))
    source = Pretrained(Run(tmp_path / "run"), "run", None, "")  # type: ignore[arg-type]
    monkeypatch.setattr(Pretrained, "seen", property(lambda _self: Seen({"Alpha": ("train",)})))
    with pytest.raises(UsageError, match=r"trained on Alpha, so their features repeat its labels.*--leave-out Alpha"):
        check_independent(source, task)


def test_the_pairs_of_classes_on_the_terminal_add_up() -> None:
    matrix = np.zeros((4, 4), np.int64)
    matrix[0, 1:], matrix[1, 2:], matrix[2, 3], matrix[3, 0] = (9, 8, 7), (6, 5), 2, 1
    task = SimpleNamespace(name="Toy", target="class")
    audit: Any = SimpleNamespace(
        task=task, rows=range(100), doubts=range(38), accuracy=0.5, notes=(), names=list("abcd"), matrix=lambda: matrix
    )
    said = list(labels_page.lines(audit, []))
    assert said[1] == "  a, looks like b: 9"
    assert sum(int(line.rpartition(" ")[2]) for line in said[1:]) == 38
    assert said[-1] == "  other pairs of classes: 3"
