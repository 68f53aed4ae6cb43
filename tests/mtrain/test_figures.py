"""Tables and figures: the paper's own conclusions out of its numbers, and a page that holds everything it shows."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure
from PIL import Image

from mtrain.cli import group
from mtrain.config import FitConfig
from mtrain.disk.documents import write_document
from mtrain.errors import RunError
from mtrain.evaluation import paper_tables
from mtrain.evaluation.paper_tables import TaskRow, published
from mtrain.evaluation.selecting import selection
from mtrain.evaluation.selecting.ranks import Summary
from mtrain.report import charts, csv_files, figures, grid_figures
from mtrain.report.breakhis_table import breakhis_rows
from mtrain.report.pages import sweep_page
from mtrain.sweep.combination import Combination
from tests.mtrain.sweeps import GRID, write_sweep
from tests.mtrain.test_fit import Notes
from tests.mtrain.test_report import Page, a_transfer
from tests.small_programs import drawn_as_png

SVG = "{http://www.w3.org/2000/svg}"


def write_evaluation(folder: Path, number: int, **changed: Any) -> None:
    content = {"task": "Lung", "metric": "accuracy", "mode": "svm", "source": "multitask", "backbone": "tiny"}
    content |= {"seed": 0, "set": "test", "score": 0.9, "scores": {}, "n_train": 40} | changed
    path = folder / content["task"] / f"{number:024}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def some_evaluations(folder: Path, task: str = "Lung", backbone: str = "tiny") -> None:
    scores = {
        ("svm", "imagenet"): [0.80],
        ("svm", "multitask"): [0.90, 0.92, 0.94],
        ("scratch", "random"): [0.5, 0.6],
        ("finetune", "imagenet"): [0.9, 0.95],
        ("finetune", "multitask"): [0.91, 0.96],
    }
    for (mode, source), values in scores.items():
        for seed, score in enumerate(values):
            about = {"task": task, "mode": mode, "source": source, "seed": seed, "backbone": backbone}
            write_evaluation(folder, len(list(folder.glob("*/*.json"))), score=score, **about)


def sheet(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


# --- the published numbers ---


@pytest.mark.parametrize(
    ("backbone", "mode", "in_favour", "better", "worse"),
    [
        ("mtdp_densenet121", "svm", 9, 7, set()),
        ("resnet50", "svm", 6, 4, {"CellInclusion", "Glomeruli"}),
        ("mtdp_densenet121", "finetune", 5, 0, set()),
        ("resnet50", "finetune", 6, 0, set()),
    ],
)
def test_the_rule_of_significance_gives_the_papers_conclusions(
    backbone: str, mode: str, in_favour: int, better: int, worse: set[str]
) -> None:
    """Section V-A: 15 of 20 in favour by svm, 11 of them significant, 2 significantly against; by finetune 11, none."""
    rows = published()[backbone]
    assert sum((row.gain(mode) or 0) > 0 for row in rows) == in_favour
    assert sum(row.verdict(mode) == 1 for row in rows) == better
    assert {row.task for row in rows if row.verdict(mode) == -1} == worse


def test_the_published_tables_are_whole_and_in_the_order_of_the_figures() -> None:
    for rows in published().values():
        assert [row.task for row in rows] == [
            "BoneMarrow",
            "MouseLba",
            "HumanLba",
            "Lung",
            "Necrosis",
            "ProliferativePattern",
            "CellInclusion",
            "Glomeruli",
            "Breast2",
            "Breast1",
        ]
        assert all(set(row.scores) == set(paper_tables.COLUMNS) for row in rows)
    breakhis = paper_tables.published_breakhis()
    assert breakhis["resnet50"]["svm-multitask"]["200x"] == Summary(89.15, 4.40, 5)
    assert sum(len(row) for rows in breakhis.values() for row in rows.values()) == 32


# --- tables ---


def test_a_row_has_mean_and_deviation_in_percent_and_knows_its_best(tmp_path: Path) -> None:
    some_evaluations(tmp_path)
    (row,) = paper_tables.table(paper_tables.read_evaluations(tmp_path), "tiny")
    assert list(row.scores) == ["scratch", "svm-imagenet", "svm-multitask", "finetune-imagenet", "finetune-multitask"]
    assert row.scores["svm-multitask"] == Summary(pytest.approx(92), pytest.approx(2), 3)
    assert row.scores["svm-imagenet"] == Summary(80, 0, 1)
    assert (row.best, row.verdict("svm"), row.verdict("finetune")) == ("finetune-multitask", 1, 0)
    assert row.gain("svm") == pytest.approx(12)


def test_of_one_model_the_newest_evaluation_counts_and_other_sets_do_not(tmp_path: Path) -> None:
    write_evaluation(tmp_path, 0, score=0.1)
    write_evaluation(tmp_path, 1, score=0.7)
    write_evaluation(tmp_path, 2, score=0.2, set="val", seed=1)
    write_evaluation(tmp_path, 3, score=None, seed=2)
    write_evaluation(tmp_path, 4, mode="knn", score=0.3)
    for number, path in enumerate(sorted(tmp_path.glob("*/*.json"))):
        os.utime(path, ns=(number, number))
    (row,) = paper_tables.table(paper_tables.read_evaluations(tmp_path), "tiny")
    assert row.scores == {"svm-multitask": Summary(pytest.approx(70), None, 1)}
    assert row.gain("svm") is None
    assert row.verdict("svm") is None


def test_a_file_that_is_no_evaluation_is_named(tmp_path: Path) -> None:
    (tmp_path / "Lung").mkdir()
    (tmp_path / "Lung" / "x.json").write_text('{"task": "Lung"}')
    with pytest.raises(RunError, match=r"x\.json: not an evaluation: metric: is missing"):
        paper_tables.read_evaluations(tmp_path)
    assert paper_tables.read_evaluations(tmp_path / "nowhere") == []


def test_what_was_scored_otherwise_is_no_baseline(tmp_path: Path) -> None:
    """Our own run is of 96 px and two rates; the newest baselines are of 224 px, other shards, other epochs."""
    store = write_sweep(tmp_path / "sweeps" / "toy", scores)
    identity = {"size": 96, "task_digest": "a", "solver": "batched"}
    tuning = {"size": 96, "task_digest": "a", "epochs": 100, "rates": [1e-3], "batch": 64}
    own = str(store.path / "runs" / f"{0:024}")
    told = [
        (0.90, "svm", "multitask", identity),
        (0.80, "svm", "imagenet", identity),
        (0.10, "svm", "imagenet", identity | {"size": 224}),
        (0.20, "svm", "imagenet", identity | {"task_digest": "b"}),
        (0.91, "finetune", "multitask", tuning),
        (0.81, "finetune", "imagenet", tuning),
        (0.11, "finetune", "imagenet", tuning | {"epochs": 2}),
        (0.70, "scratch", "random", tuning),
        (0.12, "scratch", "random", tuning | {"rates": [1e-3, 1e-4]}),
    ]
    for number, (score, mode, source, about) in enumerate(told):
        run = own if source == "multitask" else "elsewhere"
        write_evaluation(tmp_path / "e", number, score=score, mode=mode, source=source, identity=about, run=run)
        os.utime(tmp_path / "e" / "Lung" / f"{number:024}.json", ns=(number, number))
    notes = Notes()
    out = tmp_path / "out" / "report.html"
    page = sweep_page.write_sweep_report(store, tmp_path / "e", out, paper=False, report=notes)
    means = {row["column"]: row["mean"] for row in sheet(tmp_path / "out" / "table.csv")}
    assert means == {
        "scratch": "70.0",
        "svm-imagenet": "80.0",
        "svm-multitask": "90.0",
        "finetune-imagenet": "81.0",
        "finetune-multitask": "91.0",
    }
    assert notes.said == [
        "Lung, tiny, finetune-imagenet: 1 evaluation left out, of tuning epochs 2, not 100",
        "Lung, tiny, scratch: 1 evaluation left out, of tuning rates 0.001 0.0001, not 0.001",
        "Lung, tiny, svm-imagenet: 1 evaluation left out, of other shards",
        "Lung, tiny, svm-imagenet: 1 evaluation left out, of size 224, not 96",
    ]
    assert "svm-imagenet: 1 evaluation left out, of size 224, not 96" in page.read_text()


def test_a_column_holds_networks_of_one_combination(tmp_path: Path) -> None:
    store = write_sweep(tmp_path / "sweeps" / "toy", scores)
    # cells 0 and 1 are of two combinations, cell 8 is the first one again with another seed
    for number, (cell, seed, score) in enumerate([(1, 2, 0.1), (0, 0, 0.8), (8, 1, 0.9)]):
        run = str(store.path / "runs" / f"{cell:024}")
        write_evaluation(tmp_path / "e", number, score=score, seed=seed, run=run)
        os.utime(tmp_path / "e" / "Lung" / f"{number:024}.json", ns=(number, number))
    sweep_page.write_sweep_report(store, tmp_path / "e", tmp_path / "out" / "report.html", paper=False)
    (row,) = sheet(tmp_path / "out" / "table.csv")
    assert (row["seeds"], float(row["mean"])) == ("2", pytest.approx(85))


def test_joint_stands_beside_networks_of_the_same_start_and_is_of_one_training(tmp_path: Path) -> None:
    store = write_sweep(tmp_path / "sweeps" / "toy", scores)
    training = {"weights": "imagenet", "train_on": "train+val", "lr": 1e-3, "pool": "without-lung"}
    joint = training | {"pool": "whole"}
    told: list[tuple[float, int, str, dict[str, Any]]] = [
        (0.10, 0, "joint", joint | {"weights": "random"}),
        (0.20, 0, "joint", joint | {"train_on": "train"}),
        (0.30, 1, "joint", joint | {"lr": 1e-2}),
        (0.40, 2, "joint", joint | {"pool": "smaller"}),
        (0.80, 0, "joint", joint),
        (0.90, 1, "joint", joint),
        (0.70, 0, "svm", training),
    ]
    for number, (score, seed, mode, about) in enumerate(told):
        # a folder that was moved since: a run is known by its sweep and its name
        run = f"elsewhere/toy/runs/{0:024}" if mode == "svm" else "runs/joint"
        write_evaluation(tmp_path / "e", number, score=score, seed=seed, mode=mode, training=about, run=run)
        os.utime(tmp_path / "e" / "Lung" / f"{number:024}.json", ns=(number, number))
    notes = Notes()
    sweep_page.write_sweep_report(store, tmp_path / "e", tmp_path / "out" / "report.html", paper=False, report=notes)
    rows = {row["column"]: (row["seeds"], float(row["mean"])) for row in sheet(tmp_path / "out" / "table.csv")}
    assert rows == {"svm-multitask": ("1", 70.0), "joint": ("2", 85.0)}
    assert notes.said == [
        "Lung, tiny, joint: 1 evaluation left out, of joint lr 0.01, not 0.001",
        "Lung, tiny, joint: 1 evaluation left out, of other joint pool",
        "Lung, tiny, joint: 1 evaluation left out, of train_on train, not train+val",
        "Lung, tiny, joint: 1 evaluation left out, of weights random, not imagenet",
    ]


def test_a_score_that_is_not_defined_is_said(tmp_path: Path) -> None:
    store = write_sweep(tmp_path / "sweeps" / "toy", scores)
    for seed in range(2):
        about = {"source": "imagenet", "mode": "finetune", "metric": "roc_auc", "score": None}
        write_evaluation(tmp_path / "e", seed, seed=seed, **about)
    notes = Notes()
    page = sweep_page.write_sweep_report(
        store, tmp_path / "e", tmp_path / "out" / "report.html", paper=False, report=notes
    )
    assert notes.said == ["Lung, tiny, finetune-imagenet: ROC AUC is not defined on the test set (2 evaluations)"]
    assert notes.said[0] in page.read_text()


def test_a_baseline_has_one_set_of_imagenet_weights(tmp_path: Path) -> None:
    store = write_sweep(tmp_path / "sweeps" / "toy", scores)
    for number, digest in enumerate(("old", "new")):
        about = {"source": "imagenet", "mode": "finetune", "seed": number, "identity": {"weights_digest": digest}}
        write_evaluation(tmp_path / "e", number, score=0.5 + number / 4, **about)
        os.utime(tmp_path / "e" / "Lung" / f"{number:024}.json", ns=(number, number))
    notes = Notes()
    sweep_page.write_sweep_report(store, tmp_path / "e", tmp_path / "out" / "report.html", paper=False, report=notes)
    assert [row["mean"] for row in sheet(tmp_path / "out" / "table.csv")] == ["75.0"]
    assert notes.said == ["Lung, tiny, finetune-imagenet: 1 evaluation left out, of other ImageNet weights"]


@pytest.mark.parametrize("stated", [{"size": 96}, {}])
def test_the_size_of_the_sweep_decides_where_it_evaluated_nothing(tmp_path: Path, stated: dict[str, int]) -> None:
    store = write_sweep(tmp_path / "sweeps" / "toy", scores)
    plan = store.plan()
    write_document(store.path / "sweep.json", plan | {"sweep": {"fit": stated}})
    if not stated:  # a network's own size: its runs know it
        run, config = store.run(store.planned()[1].cell), FitConfig(backbone="tiny", size=96)
        run.write("config.json", {"config": config.model_dump(mode="json")})
    for number, size in enumerate((96, 224)):
        write_evaluation(tmp_path / "e", number, source="imagenet", identity={"size": size}, score=0.5 + number / 4)
        patients = {"source": "imagenet", "identity": {"size": size}, "seed": number}
        write_breakhis(tmp_path / "e", number, {"40X": [0.5 + number / 4]}, **patients)
    sweep_page.write_sweep_report(store, tmp_path / "e", tmp_path / "out" / "report.html", paper=False)
    assert [row["mean"] for row in sheet(tmp_path / "out" / "table.csv")] == ["50.0"]
    assert [row["mean"] for row in sheet(tmp_path / "out" / "breakhis.csv")] == ["50.0"]


# --- BreaKHis ---


def write_breakhis(folder: Path, number: int, scores: dict[str, list[float]], **changed: Any) -> None:
    told = {
        name: {"folds": [{"fold": k, "patient_accuracy": v} for k, v in enumerate(values, start=1)]}
        for name, values in scores.items()
    }
    about = {"task": "BreakHis", "metric": "patient_accuracy", "set": "folds", "score": None, "magnifications": told}
    write_evaluation(folder, number, **about | changed)


def test_breakhis_averages_runs_of_several_seeds_and_no_others(tmp_path: Path) -> None:
    """Four trainings that are scored with one seed: two are alike but for their own."""
    same = {"lr": 1e-3, "pool": "all"}
    for number, training in enumerate(({"lr": 1e-2, "pool": "all"}, {"lr": 1e-3, "pool": "few"}, same, same)):
        folds = {"40X": [0.1] if number < 2 else [0.6 + number / 10]}
        write_breakhis(tmp_path, number, folds, training=training, identity={"weights_digest": str(number)})
        os.utime(tmp_path / "BreakHis" / f"{number:024}.json", ns=(number, number))
    (row,), notes = breakhis_rows(tmp_path, ["tiny"], paper=False)
    assert row.scores == {"40x": Summary(pytest.approx(85), None, 1)}
    assert row.seeds == 2
    assert len(notes) == 2


def test_breakhis_is_the_mean_over_folds_and_a_fold_that_over_seeds(tmp_path: Path) -> None:
    """Seeds' folds 0.7, 0.8, 0.9 and 0.9, 0.8, 0.7: every fold 0.8, so no deviation; of one seed alone it is 0.1."""
    write_breakhis(tmp_path, 0, {"40X": [0.7, 0.8, 0.9]}, seed=0)
    write_breakhis(tmp_path, 1, {"40X": [0.9, 0.8, 0.7]}, seed=1)
    write_breakhis(tmp_path, 2, {"40X": [0.7, 0.8, 0.9], "400X": [0.5, 0.5]}, source="imagenet")
    write_breakhis(tmp_path, 3, {"40X": [0.1]}, backbone="another")
    write_evaluation(tmp_path, 4)
    (baseline, ours), _ = breakhis_rows(tmp_path, ["tiny"], paper=False)
    assert (ours.column, ours.seeds, baseline.column, baseline.seeds) == ("svm-multitask", 2, "svm-imagenet", 1)
    assert ours.scores == {"40x": Summary(pytest.approx(80), pytest.approx(0, abs=1e-9), 3)}
    assert baseline.scores["40x"] == Summary(pytest.approx(80), pytest.approx(10), 3)
    assert baseline.scores["400x"] == Summary(50, 0, 2)
    assert baseline.magnifications == ["40x", "400x"]
    assert [one.task for one in paper_tables.read_evaluations(tmp_path)] == ["Lung"]


def test_the_published_breakhis_stands_beside_ones_own(tmp_path: Path) -> None:
    write_breakhis(tmp_path, 0, {"40X": [0.8, 0.9]}, backbone="mtdp_densenet121")
    (row,), _ = breakhis_rows(tmp_path, ["mtdp_densenet121", "resnet50"], paper=True)
    assert row.published["400x"] == Summary(87.22, 1.65, 5)
    lines = list(csv.DictReader(io.StringIO(csv_files.breakhis([row]))))
    assert [line["magnification"] for line in lines] == ["40x", "100x", "200x", "400x"]
    assert (lines[0]["mean"], lines[0]["folds"], lines[0]["published_mean"]) == ("85.0", "2", "86.05")
    assert (lines[1]["mean"], lines[1]["published_mean"]) == ("", "84.74")
    (tmp_path / "BreakHis" / "x.json").write_text('{"set": "folds"}')
    with pytest.raises(RunError, match=r"x\.json: not an evaluation: task: is missing"):
        breakhis_rows(tmp_path, ["mtdp_densenet121"], paper=True)


def test_the_page_has_breakhis_where_it_was_evaluated(tmp_path: Path) -> None:
    store = write_sweep(tmp_path / "sweeps" / "toy", scores)
    page = sweep_page.write_sweep_report(store, tmp_path / "evaluations", tmp_path / "page.html", paper=False)
    assert "BreaKHis" not in page.read_text()
    assert not (tmp_path / "breakhis.csv").exists()
    write_breakhis(tmp_path / "evaluations", 0, {"40X": [0.7, 0.8, 0.9]}, source="imagenet")
    page = sweep_page.write_sweep_report(store, tmp_path / "evaluations", tmp_path / "page.html", paper=False)
    text = " ".join(" ".join(Page(page.read_text()).text).split())
    assert "tiny svm, ImageNet 80.00±10.00 not run not run not run" in text
    assert sheet(tmp_path / "breakhis.csv")[0]["std"][:2] in ("10", "9.")


# --- figures ---


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter(f"{SVG}text")]


def test_figure_2_names_every_task_and_fills_what_is_significant() -> None:
    rows = published()["mtdp_densenet121"]
    svg = figures.svg(figures.differences(rows, "svm"))
    shown = texts(svg)
    assert [text for text in shown if text in {row.task for row in rows}] == [row.task for row in rows]
    metrics = {"accuracy": "(accuracy)", "roc_auc": "(ROC AUC)"}
    assert [text for text in shown if text in metrics.values()] == [metrics[row.metric] for row in rows]
    bars = re.findall(r'style="fill: (#[0-9a-f]{6}|none); stroke: (#\w+)[^"]*stroke-linejoin: miter"', svg)
    assert [fill for fill, _ in bars].count(figures.SERIES[0]) == 7
    assert svg == figures.svg(figures.differences(rows, "svm"))


def test_the_published_rows_are_drawn_where_the_task_is_the_same() -> None:
    rows = published()["mtdp_densenet121"]
    other = {row.task: row for row in published()["resnet50"]}
    plain, overlaid = (figures.svg(figures.differences(rows[:3], "svm", paper)) for paper in (None, other))
    assert plain.count("<use") + 3 == overlaid.count("<use")
    assert figures.svg(figures.differences(rows[:3], "svm", {})) == plain


def test_figures_4_to_6_say_what_is_drawn() -> None:
    rows = [TaskRow("Lung", "accuracy", 4, {"scratch": Summary(50, 5, 5), "svm-multitask": Summary(80, 1, 5)})]
    assert {"Lung", "(accuracy)", "scratch", "svm, multi-task"} <= set(texts(figures.svg(figures.approaches(rows))))
    rates = figures.by_rate({"1e-3": [50.0, 60.0], "1e-4": [70.0] * 20})
    assert {"1e-3", "n = 2", "1e-4", "n = 20"} <= set(texts(figures.svg(rates)))
    assert [line.get_ydata().tolist() for line in rates.axes[0].lines if len(line.get_xdata()) == 5] == [[70.0] * 5]
    assert {tuple(line.get_ydata()) for line in rates.axes[0].lines} >= {(50.0, 60.0), (55.0, 55.0)}
    heads = figures.by_heads({("1", True): [50.0, 51.0], ("1", False): [49.0], ("5", True): [60.0]})
    assert {"1", "5", "with warm-up", "without warm-up"} <= set(texts(figures.svg(heads)))
    with Image.open(io.BytesIO(drawn_as_png(heads))) as drawn:
        assert drawn.format == "PNG"
        assert drawn.width > 200


def test_inside_a_page_a_figure_has_the_pages_colours_and_ids_of_its_own() -> None:
    svg = figures.svg(figures.approaches(published()["resnet50"]))
    inside = figures.inline(svg, 'say "<this>"', "one")
    assert 'aria-label="say &quot;&lt;this&gt;&quot;"' in inside
    assert not re.search(r"#[0-9a-f]{6}|xlink|<style|https?:", inside)
    ids = set(re.findall(r'\bid="([^"]+)"', inside))
    assert all(name.startswith("one-") for name in ids)
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', inside)) <= ids


# --- the page ---


def scores(combination: Combination, task: str, seed: int) -> float | str:
    if task == "Glomeruli" and combination == GRID[3] and seed:
        return "missing"
    return 0.5 + 0.1 * GRID.index(combination) + 0.01 * seed


def test_values_of_the_grid_increase_to_the_right_as_numbers(tmp_path: Path) -> None:
    grid = [Combination("tiny", lr, tau, True) for lr in (0.001, 1e-4, 1e-2, 3e-3) for tau in (10.0, 5.0)]
    store = write_sweep(tmp_path / "toy", lambda c, *_: 0.5 + c.lr, combinations=grid)
    chosen, none = selection.select(store), grid_figures.Baselines({}, {})
    (rates, *_), (heads, *_) = grid_figures.rate_figures(chosen, none), grid_figures.head_figures(chosen, none)
    assert re.findall(r"(\de\S+): \d", rates.words) == ["1e-4", "1e-3", "3e-3", "1e-2"]
    drawn = texts(rates.svg)
    assert [text for text in drawn if re.fullmatch(r"\de-\d", text)] == ["1e-4", "1e-3", "3e-3", "1e-2"]
    assert [text for text in texts(heads.svg) if text in ("5", "10")] == ["5", "10"]


def test_the_page_holds_tables_figures_and_files(tmp_path: Path) -> None:
    store = write_sweep(tmp_path / "sweeps" / "toy", scores)
    some_evaluations(tmp_path / "evaluations")
    some_evaluations(tmp_path / "evaluations", backbone="another")
    page = sweep_page.write_sweep_report(store, tmp_path / "evaluations", tmp_path / "out" / "page.html", paper=False)
    html = page.read_text()
    parsed = Page(html)
    text = " ".join(" ".join(parsed.text).split())
    assert not parsed.open
    assert "15 of 16 cells: 4 combinations, 3 left-out tasks, 2 seeds." in text
    assert "Lung accuracy 40 not stated 55.00±7.07 80.00 92.00±2.00 ▲ 92.50±3.54 93.50±3.54 +12.00 +1.00" in text
    assert "Not run: joint." in text
    assert "<strong>93.50±3.54</strong>" in html
    assert "another" not in text
    assert "2 of 24 scores are missing" in text
    assert [link for link in parsed.fetches if not link.startswith("use href=#")] == []
    assert not re.search(r"@import|https?://|<script|url\((?!#)", html)
    names = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    by_task = {f"{number}-tiny-{task}" for number in (5, 6) for task in ("Lung", "Necrosis", "Glomeruli")}
    drawn = {"2-tiny", "3-tiny", "4-tiny"} | by_task
    assert names == {f"figure-{name}.{kind}" for name in drawn for kind in ("svg", "png")}
    rows = sheet(tmp_path / "out" / "cells.csv")
    assert len(rows) == 24
    assert [row["state"] for row in rows].count("missing") == 2
    assert {row["task"] for row in sheet(tmp_path / "out" / "ranks.csv")} == {"Lung", "Necrosis", "Glomeruli"}
    table = {row["column"]: row for row in sheet(tmp_path / "out" / "table.csv")}
    assert float(table["svm-multitask"]["mean"]) == pytest.approx(92)
    assert (table["svm-multitask"]["significant"], table["svm-multitask"]["published_mean"]) == ("1", "")


def test_the_published_scores_stand_beside_ones_own_when_asked(tmp_path: Path) -> None:
    grid = [Combination("mtdp_densenet121", lr, 5.0, True) for lr in (1e-3, 1e-4, 1e-5)]
    write_sweep(tmp_path / "sweeps" / "toy", lambda c, _t, _s: c.lr, combinations=grid)
    some_evaluations(tmp_path / "evaluations", backbone="mtdp_densenet121")
    command = ["report", "--sweeps", str(tmp_path / "sweeps"), "--sweep", "toy", "--paper"]
    answer = CliRunner().invoke(group, [*command, "--evaluations", str(tmp_path / "evaluations")])
    assert answer.exit_code == 0, answer.output
    html = Path(answer.output.strip()).read_text()
    assert "<small>91.40±0.32</small>" in html
    assert "diamonds: as published" in html
    table = sheet(tmp_path / "sweeps" / "toy" / "report" / "table.csv")
    assert {row["column"]: row["published_mean"] for row in table}["svm-imagenet"] == "90.54"


def test_models_of_other_sweeps_do_not_enter(tmp_path: Path) -> None:
    store = write_sweep(tmp_path / "sweeps" / "toy", scores)
    write_evaluation(tmp_path / "evaluations", 0, run=str(store.path / "runs" / "x"), score=0.5)
    write_evaluation(tmp_path / "evaluations", 1, run=str(tmp_path / "sweeps" / "other" / "runs" / "x"), seed=1)
    page = sweep_page.write_sweep_report(store, tmp_path / "evaluations", tmp_path / "page.html", paper=False)
    (row,) = sheet(page.parent / "table.csv")
    assert (row["mean"], row["seeds"]) == ("50.0", "1")


def test_one_seed_has_no_deviation_and_no_mark_anywhere(tmp_path: Path) -> None:
    store = write_sweep(
        tmp_path / "sweeps" / "toy", lambda c, *_: "missing" if c == GRID[0] else 0.5 + c.lr, seeds=(0,)
    )
    for number, (mode, source) in enumerate((m, s) for m in ("svm", "finetune") for s in ("imagenet", "multitask")):
        score = 0.5 if source == "imagenet" else 0.9
        write_evaluation(tmp_path / "e", number, mode=mode, source=source, score=score)
    page = sweep_page.write_sweep_report(store, tmp_path / "e", tmp_path / "out" / "report.html", paper=False)
    text = page.read_text()
    table = text[text.index("<tbody>") : text.index("</tbody>")]
    assert "90.00" in table
    assert not re.search("▲|▼|±", table)
    assert "nan" not in re.sub(r"<[^>]*>", " ", text)
    assert '<td class="n">no score</td><td class="n">none</td>' in text
    for row in sheet(tmp_path / "out" / "table.csv"):
        assert (row["std"], row["seeds"], row["significant"]) == ("", "1", "")
    ranked = sheet(tmp_path / "out" / "ranks.csv")
    assert {row["state"] for row in ranked} == {"scored", "no score"}
    assert {row["std"] for row in ranked} == {""}
    without = [row for row in ranked if row["state"] == "no score"]
    assert {row[name] for row in without for name in ("mean_rank", "low", "high", "mean", "rank")} == {""}
    (rows,) = [paper_tables.table(paper_tables.read_evaluations(tmp_path / "e"), "tiny")]
    for mode in ("svm", "finetune"):
        figure = figures.differences(rows, mode)
        assert not figure.axes[0].containers[1:], "an error bar"
        assert figure.axes[0].patches[0].get_facecolor()[3] == 0, "a filled bar"


def test_the_sweeps_page_has_intervals_over_groups_and_of_the_differences(tmp_path: Path) -> None:
    """Four patients of two images: multi-task is right on all, ImageNet errs on one patient."""
    label = np.array([0, 1] * 4)
    group = np.repeat(np.arange(4), 2).astype(str)
    right = np.where(label == 1, 1.0, -1.0)
    key = np.array([f"key{number}" for number in range(8)])
    for number, (source, decisions) in enumerate(
        [("imagenet", np.where(group == "0", -right, right)), ("multitask", right), ("multitask", right)]
    ):
        score = float(((decisions > 0) == (label == 1)).mean())
        write_evaluation(tmp_path / "e", number, source=source, seed=number, score=score, samples=8, groups=4)
        path = tmp_path / "e" / "Lung" / f"{number:024}.npz"
        np.savez(path, key=key, label=label, group=group, decisions=decisions)
    (row,) = paper_tables.table(paper_tables.read_evaluations(tmp_path / "e"), "tiny", intervals=True)
    assert (row.samples, row.groups) == (8, 4)
    assert row.intervals["svm-multitask"] == (100, 100)
    low, high = row.intervals["svm-imagenet"]
    assert 0 <= low < 75 < high == 100
    assert row.differences["svm"] == (100 - high, 100 - low)
    page = sweep_page.write_sweep_report(
        write_sweep(tmp_path / "s" / "toy", scores), tmp_path / "e", tmp_path / "out" / "report.html", paper=False
    )
    text = " ".join(" ".join(Page(page.read_text()).text).split())
    assert "Not run: scratch; finetune, ImageNet; finetune, multi-task; joint." in text
    assert f"difference Lung accuracy 40 8 (4) 75.00 [{low:.1f}, 100.0] 100.00±0.00 [100.0, 100.0]" in text
    assert f"+25.00 [+0.0, +{100 - low:.1f}]" in text
    assert "multi-task minus ImageNet, with 95% intervals on the same groups" in text


def test_imagenet_is_a_line_in_the_figures_of_a_sweep_or_is_said_to_be_missing(tmp_path: Path) -> None:
    store = write_sweep(tmp_path / "s" / "toy", scores)
    folder = store.path / "runs" / f"{0:024}" / "transfer"
    folder.mkdir(parents=True)
    found = a_transfer("imagenet", 0.625, task="Lung")
    (folder / "Lung-svm-imagenet.json").write_text(json.dumps(found))
    page = sweep_page.write_sweep_report(store, tmp_path / "e", tmp_path / "out" / "report.html", paper=False)
    html = page.read_text()
    assert "Lung (accuracy), tiny</figcaption>" in html
    assert "Necrosis (accuracy), tiny; ImageNet was not scored on this validation set</figcaption>" in html
    figure = figures.by_rate({"1e-3": [50.0, 60.0]}, {"ImageNet": 62.5, "published weights": 70.0})
    assert levels(figure) == {"ImageNet": [62.5, 62.5], "published weights": [70.0, 70.0]}


def levels(figure: Figure) -> dict[str, list[float]]:
    """Title -> height of both ends, of the lines of the baselines."""
    lines = {str(line.get_label()): list(line.get_ydata()) for line in figure.axes[0].lines}
    return {title: lines[title] for title in ("ImageNet", "published weights") if title in lines}


def test_published_weights_that_a_sweep_began_from_are_a_line_in_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seeds of a decoder on the published weights score 60 and 65%."""
    store = write_sweep(tmp_path / "s" / "toy", scores)
    monkeypatch.setattr(grid_figures, "start_of", lambda run: tmp_path / "vit.safetensors")
    folder = store.path / "runs" / f"{0:024}"
    (folder / "transfer").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"config": {"backbone": "tiny", "shards": "shards"}}))
    given = os.path.relpath(tmp_path / "vit.safetensors")  # another way to name the same file
    cases = [
        (given, 0.6, 0, "val"),
        (given, 0.65, 1, "val"),
        (given, 0.1, 0, "test"),
        ("other.safetensors", 0.1, 0, "val"),
    ]
    for number, (weights, score, seed, scored_on) in enumerate(cases):
        one = a_transfer(weights, score, task="Lung", set=scored_on, identity={"seed": seed})
        (folder / "transfer" / f"{number}.json").write_text(json.dumps(one))
    results = store.results(store.planned())
    found = grid_figures.baselines(store, results)
    assert found.of("tiny", "Lung") == {"published weights": 62.5}
    assert found.missing("tiny", "Lung") == ""
    assert found.missing("tiny", "Necrosis") == "; published weights were not scored on this validation set"
    sweep_page.write_sweep_report(store, tmp_path / "e", tmp_path / "out" / "report.html", paper=False)
    for number in (5, 6):
        (figure,) = (tmp_path / "out" / "figures").glob(f"figure-{number}-tiny-Lung.svg")
        assert "published weights" in texts(figure.read_text())


def test_bars_start_at_zero_and_everything_else_is_a_dot() -> None:
    rows = [TaskRow("Lung", "accuracy", 4, {"svm-imagenet": Summary(80, 0, 1), "svm-multitask": Summary(90, 1, 5)})]
    heads = figures.by_heads({("1", True): [50.0, 51.0], ("1", False): [49.0]})
    for figure in (figures.approaches(rows), heads):
        assert not figure.axes[0].patches
    (bar,) = figures.differences(rows, "svm").axes[0].patches
    assert (bar.get_x(), bar.get_width()) == (0, 10)


def test_values_that_hardly_differ_are_written_whole_beside_their_axis() -> None:
    figure = charts.learning_curve([(1, 0.69318193), (2, 0.69318199)], "loss", small=True)
    assert figure is not None
    figure.canvas.draw()
    assert figure.axes[0].yaxis.get_offset_text().get_text() == ""
    assert "0.69318" in figure.axes[0].get_yticklabels()[1].get_text()


def test_a_network_is_compared_with_the_published_weights_that_it_began_from(tmp_path: Path) -> None:
    """Networks with a table, such as uni2-h, have no ImageNet weights to compare with."""

    def one(source: str, seed: int, score: float, mode: str = "svm") -> paper_tables.Evaluation:
        return paper_tables.Evaluation(
            task="Lung",
            metric="accuracy",
            mode=mode,
            source=source,
            backbone="uni2-h",
            seed=seed,
            set="test",
            score=score,
            n_train=10,
        )

    found = [one("multitask", 0, 0.9), one("multitask", 1, 0.92), one("start", 0, 0.8)]
    (row,) = paper_tables.table([*found, one("imagenet", 0, 0.5, "finetune")], "uni2-h")
    assert (row.baseline("svm"), row.baseline("finetune")) == ("start", "imagenet")
    assert (round(row.gain("svm") or 0, 6), row.gain("finetune")) == (11.0, None)  # 91 - 80
    assert row.verdict("svm") == 1  # twice the deviation 1.41 is less than 11
    assert row.scores["svm-start"] == Summary(80.0, 0.0, 1)  # no seed changes it
    network = sweep_page.Network("uni2-h", [row], {})
    (table,) = network.tables
    assert list(table.columns) == ["svm-start", "svm-multitask", "finetune-imagenet", "finetune-multitask"]
    assert (table.modes, table.absent) == (("svm", "finetune"), ("scratch", "joint"))
    assert network.baseline == "the published weights that it began from"
    axes = figures.differences([row], "svm").axes[0]
    assert axes.get_xlabel() == "multi-task minus published weights, percentage points"
    assert {label.get_text() for label in figures.approaches([row]).axes[0].get_legend().get_texts()} == {
        "svm, published weights",
        "svm, multi-task",
        "finetune, ImageNet",
    }
    (note,) = paper_tables.untabled([one("multitask", 0, 0.75, "knn")])
    assert note == "Lung, uni2-h, knn-multitask: accuracy 75.00% on the test set (1 evaluation), not in a table"


def test_the_page_of_a_sweep_has_the_averages_of_the_seeds_beside_these(tmp_path: Path) -> None:
    store = write_sweep(tmp_path / "toy", scores)
    soup = {"run": "soups/tiny-0123", "metric": "roc_auc", "set": "val", "score": 0.75, "seeds": [0.5, None]}
    choices: dict[str, Any] = {"Lung": {"tiny": {"soup": soup}}, "Necrosis": {"tiny": None}, "Glomeruli": {"tiny": {}}}
    targets = {name: {"winner": None, "by_backbone": found} for name, found in choices.items()}
    write_document(store.path / "selected.json", {"targets": targets})
    page = sweep_page.write_sweep_report(store, tmp_path / "e", tmp_path / "out" / "page.html", paper=False)
    text = " ".join(" ".join(Page(page.read_text()).text).split())
    assert "Lung ROC AUC, validation tiny 75.00 50.00, not defined soups/tiny-0123" in text
    (store.path / "selected.json").unlink()
    page = sweep_page.write_sweep_report(store, tmp_path / "e", tmp_path / "out" / "page.html", paper=False)
    assert "Averages of the seeds" not in page.read_text()
