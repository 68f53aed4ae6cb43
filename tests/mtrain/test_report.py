"""The report: what it says, that names cannot break it, and that it asks nothing of the network."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from mtrain.cli import group
from mtrain.data.batches.images import Images
from mtrain.data.pool import find_task, open_pool
from mtrain.disk.documents import without_nan
from mtrain.evaluation.comparing.comparisons import Comparison, compare
from mtrain.report import figures
from mtrain.report.charts import in_words, learning_curve, smoothed
from mtrain.report.pages.page import percent, points
from mtrain.report.pages.run_markdown import markdown_transfers
from mtrain.report.pages.run_page import task_curves, write_report
from mtrain.runs.run_folder import Run
from mtrain.scoring.metrics import Values
from mtrain.scoring.predictions import Predictions, scores_of, write_predictions
from mtrain.transfers.results import results_with_answers
from tests.mtrain.pools import write_pool
from tests.mtrain.test_fit import Notes


def a_run(folder: Path, *, transfers: list[dict[str, Any]] = (), name: str = "toy") -> Run:  # type: ignore[assignment]
    """A run that trained on two of the three toy tasks."""
    run = Run(folder / "runs" / name)
    run.path.mkdir(parents=True)
    shards = write_pool(folder / "shards")
    about = {"config": {"backbone": "tiny", "shards": str(shards)}, "left_out": ["Gamma"], "versions": {"python": "3"}}
    (run.path / "config.json").write_text(json.dumps(about))
    (run.path / "state.json").write_text(json.dumps({"state": "finished", "iteration": 40}))
    lines = [
        {"event": "step", "iteration": i, "loss": 1.0 / i, "tasks": {"Alpha": 2.0 / i, "Beta": 0.5}}
        for i in range(1, 41)
    ]
    lines.append({"event": "validation", "iteration": 40, "accuracy": {"Alpha": 0.75}})
    (run.path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for number, result in enumerate(transfers):
        path = run.path / "transfer" / f"{number}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result))
    return run


def a_transfer(weights: str, score: float | None, **other: Any) -> dict[str, Any]:
    result = {"task": "Gamma", "set": "val", "metric": "accuracy", "weights": weights, "score": score, "mode": "svm"}
    return result | {"identity": {"final": False}, "notes": []} | other


class Page(HTMLParser):
    """Text of the page, tags that are open, and everything that could fetch something."""

    VOID = frozenset({"meta", "br", "path", "link", "img", "wbr"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.tags: list[str] = []
        self.fetches: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetches += [f"{tag} {name}={value}" for name, value in attrs if name in {"src", "href", "xlink:href"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_compares_with_the_baseline_and_lists_the_pool(tmp_path: Path) -> None:
    run = a_run(tmp_path, transfers=[a_transfer("run", 0.875), a_transfer("imagenet", 0.8125)])
    path, table = write_report(run, tmp_path / "out" / "page.html")
    page = Page(path.read_text())
    text = " ".join(" ".join(page.text).split())
    assert not page.open
    assert "Gamma svm, accuracy, validation not stated 87.50 81.25 +6.25 undefined" in text
    assert "Alpha trained on train class-0, class-1 24 8 8 CC0-1.0" in text
    assert "Gamma left out class-0, class-1, class-2 24 8 8" in text
    assert page.tags.count("svg") == 2 + 1 + 2 + 1  # scores, differences, loss, loss by task, accuracy
    assert "| Gamma | svm | accuracy | validation | not stated | 87.50 | 81.25 | +6.25 | undefined |" in table
    assert (tmp_path / "out" / "page.md").read_text() == table


def test_the_page_fetches_nothing(tmp_path: Path) -> None:
    html = write_report(a_run(tmp_path), tmp_path / "page.html")[0].read_text()
    assert [fetch for fetch in Page(html).fetches if not fetch.startswith("use href=#")] == []
    assert not re.search(r"url\((?!#)|@import|https?://|<script", html)


def test_a_run_without_transfers_says_how_to_make_one(tmp_path: Path) -> None:
    path, table = write_report(a_run(tmp_path), tmp_path / "page.html")
    assert "mtrain transfer --mode svm" in path.read_text()
    assert "mtrain transfer --mode svm" in table


def test_captions_name_intervals_only_where_there_are_some(tmp_path: Path) -> None:
    there = {"intervals": {"accuracy": [0.4, 0.6]}, "scores": {"accuracy": 0.5}}
    for folder, interval in (("none", {}), ("some", there)):
        run = a_run(tmp_path / folder, transfers=[a_transfer("run", 0.5, **interval)])
        path, table = write_report(run, tmp_path / f"{folder}.html")
        assert ("95%" in table) is bool(interval)
        assert path.read_text().count("95%") == (4 if interval else 0)  # table, figure, its words, details


def test_a_transfer_without_its_baseline_has_no_difference(tmp_path: Path) -> None:
    _, table = write_report(a_run(tmp_path, transfers=[a_transfer("run", 0.5)]), tmp_path / "page.html")
    assert "| Gamma | svm | accuracy | validation | not stated | 50.00 | not run | not available | undefined |" in table


def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    nasty = '<img src=x onerror="alert(1)">|'
    found = a_transfer("run", 0.5, task=nasty, notes=[f"note {nasty}"])
    run = a_run(tmp_path, transfers=[found], name="<b>run")
    with (run.path / "log.jsonl").open("a") as file:
        file.write(json.dumps({"event": "step", "iteration": 50, "loss": 1.0, "tasks": {nasty: 1.0}}) + "\n")
    path, table = write_report(run, tmp_path / "page.html")
    assert "img" not in Page(path.read_text()).tags
    assert "b" not in Page(path.read_text()).tags
    assert "<img" not in table
    assert '"alert(1)">\\|' in table


def test_a_run_whose_shards_moved_lists_its_tasks(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    (tmp_path / "shards").rename(tmp_path / "moved")
    words = ["report", "--runs", str(tmp_path / "runs"), "--shards", str(tmp_path / "moved")]
    answer = CliRunner().invoke(group, words)
    assert answer.exit_code == 0, answer.output
    assert "| Alpha | trained on train | 2 | 24 | 8 | 8 | CC0-1.0 |" in answer.stdout
    assert (run.path / "report.html").is_file()


def test_a_run_whose_shards_are_gone_still_has_a_page(tmp_path: Path) -> None:
    run = a_run(tmp_path, transfers=[a_transfer("run", 0.5)])
    (tmp_path / "shards").rename(tmp_path / "moved")
    path, _ = write_report(run, tmp_path / "page.html")
    assert "cannot be listed" in path.read_text()
    assert "The tasks cannot be listed: " in path.with_suffix(".md").read_text()
    assert "50.00" in path.read_text()


def test_transfers_are_set_against_each_other_only_on_the_same_set() -> None:
    found = [a_transfer("run", 0.9, set="test"), a_transfer("imagenet", 0.7), a_transfer("run", 0.8)]
    by_set = {c.scored_on: c for c in compare(found)}
    assert by_set["validation"].gain == pytest.approx(0.1)
    assert by_set["test"].gain is None


def test_results_of_other_shards_sizes_or_recipes_stand_apart_and_say_so() -> None:
    """The baseline was scored before the shards were converted again, and one seed with another recipe."""
    recipe = {"task_digest": "a" * 64, "epochs": 100, "final": False}
    found = [
        a_transfer("run", 0.9, mode="finetune", identity=recipe | {"seed": 0, "weights_digest": "x"}),
        a_transfer("run", 0.8, mode="finetune", identity=recipe | {"seed": 1, "weights_digest": "x"}),
        a_transfer("run", 0.1, mode="finetune", identity=recipe | {"seed": 2, "epochs": 2}),
        a_transfer("imagenet", 0.2, mode="finetune", identity=recipe | {"seed": 0, "task_digest": "b" * 64}),
    ]
    rows = {next(iter(c.scores)): c for c in compare(found)}
    assert sorted([*c.scores.values()] for c in compare(found)) == [[0.1], [0.2], [pytest.approx(0.85)]]
    assert [c.gain for c in compare(found)] == [None] * 3
    assert rows["imagenet"].how == "finetune (shards bbbbbbbb, epochs 100)"
    table = "\n".join(markdown_transfers(compare(found)))
    assert table.count("| Gamma | finetune (") == 3
    assert "| Gamma | finetune (shards aaaaaaaa, epochs 2) |" in table
    assert rows["imagenet"].notes == (
        "shards bbbbbbbb, epochs 100: not comparable with the other rows of this task and mode",
    )
    assert compare(found[:2])[0].notes == ()


def test_modes_stand_apart_and_seeds_are_averaged() -> None:
    found = [a_transfer("run", score, mode="finetune") for score in (0.5, 0.75, None)]
    by_mode = {c.mode: c for c in compare([*found, a_transfer("run", 0.25), a_transfer("imagenet", None)])}
    assert by_mode["finetune"].scores == {"run": 0.625}
    assert by_mode["svm"].scores == {"run": 0.25, "imagenet": None}
    assert by_mode["svm"].gain is None


def test_weights_from_files_are_called_by_their_names_unless_two_are_alike(tmp_path: Path) -> None:
    weights = ["/one/w.pth", "/two/w.pth", "/one/v.pth", "random"]
    run = a_run(tmp_path, transfers=[a_transfer(name, 0.5) for name in weights])
    _, table = write_report(run, tmp_path / "page.html")
    assert "| difference | paper's rule | v.pth | /one/w.pth | /two/w.pth | random |" in table


def test_a_note_is_said_once(tmp_path: Path) -> None:
    found = [a_transfer(w, 0.5, set=s, notes=["only 3 groups"]) for w in ("run", "imagenet") for s in ("val", "test")]
    path, _ = write_report(a_run(tmp_path, transfers=found), tmp_path / "page.html")
    assert path.read_text().count("Gamma: only 3 groups") == 1


def test_results_of_shards_that_were_replaced_are_reported_and_stay(tmp_path: Path) -> None:
    found = [
        a_transfer("run", 0.5),
        a_transfer("run", 0.5, mode="knn", identity={"final": False, "task_digest": "old"}),
    ]
    notes = Notes()
    path, _ = write_report(a_run(tmp_path, transfers=found), tmp_path / "page.html", report=notes)
    told = "Gamma: not of the shards that are there now: knn; run them again to replace them"
    assert told in notes.said
    assert path.read_text().count(told) == 1


def test_a_run_without_a_log_and_with_a_result_of_another_kind_still_has_a_page(tmp_path: Path) -> None:
    run = a_run(tmp_path, transfers=[a_transfer("run", 0.5), {"identity": {}, "colour": 1}])
    (run.path / "log.jsonl").unlink()
    (run.path / "state.json").unlink()
    path, table = write_report(run, tmp_path / "page.html")
    assert "Nothing was logged yet" in path.read_text()
    assert "stopped, 0 iterations" in path.read_text()
    assert "| Gamma | svm | accuracy | validation | not stated | 50.00 |" in table


def test_task_curves_take_the_accuracy_out_of_several_numbers() -> None:
    events = [
        {"event": "validation", "iteration": 5, "tasks": {"A": {"loss": 1.0, "accuracy": 0.25}}},
        {"event": "validation", "iteration": 10, "accuracy": {"A": 0.5}},
        {"event": "step", "iteration": 10, "tasks": {"A": 9.0}},
    ]
    assert task_curves(events, "validation", ("accuracy", "tasks")) == {"A": [(5, 0.25), (10, 0.5)]}


def test_scores_are_percent_with_two_decimals() -> None:
    assert [percent(0.90125), percent(None), percent(float("nan"))] == ["90.12", "–", "–"]
    assert [points(0.01), points(-0.005), points(None)] == ["+1.00", "−0.50", "–"]


def test_smoothing_keeps_both_ends_and_a_straight_line() -> None:
    line = [(float(i), 2.0 * i) for i in range(50)]
    assert [y for _, y in smoothed(line)] == pytest.approx([y for _, y in line])
    spike = [(float(i), float(i == 25)) for i in range(50)]
    assert max(y for _, y in smoothed(spike)) < 0.5


def test_a_chart_passes_over_what_is_not_finite() -> None:
    curve = [(1, 3.0), (2, float("nan")), (3, 1.0)]
    figure = learning_curve(curve, "loss")
    assert figure is not None
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("iteration", "loss")
    assert list(axes.lines[0].get_ydata()) == [3, 1]
    assert "nan" not in figures.svg(figure)
    assert in_words("Loss", curve) == "Loss: 3 at iteration 1, 1 at iteration 3"
    assert learning_curve([(1, float("inf"))], "loss") is None


# --- intervals, classes and calibration ---


def answered(folder: Path, name: str, logits: Values, *, mode: str = "svm", **other: Any) -> None:
    """A result of these answers to the validation set of Gamma (8 samples of two groups), as a transfer writes it."""
    run = Run(folder / "runs" / "toy")
    task = next(task for task in open_pool(folder / "shards").tasks if task.name == "Gamma")
    answer = Predictions(logits, np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
    path = run.path / "transfer" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    write_predictions(path.with_suffix(".npz"), task.rows["val"], answer)
    scored = without_nan(scores_of(task, "val", task.rows["val"], answer))
    path.write_text(json.dumps(a_transfer("run", None, mode=mode) | scored | other))


def labels_of(folder: Path) -> tuple[NDArray[np.int64], list[str]]:
    rows = next(task for task in open_pool(folder / "shards").tasks if task.name == "Gamma").rows["val"]
    return rows.label, [str(group) for group in rows.group]


def test_a_difference_has_the_interval_of_the_same_groups(tmp_path: Path) -> None:
    """Two groups, drawn twice with replacement: the pairs (a, a), (a, b), (b, a) and (b, b), whose mean difference lies
    between those of either group alone, which the draws reach in a quarter of the cases.
    """
    run = a_run(tmp_path)
    label, groups = labels_of(tmp_path)
    right = np.eye(3)[label] * 4.0
    wrong = np.array([group == groups[0] for group in groups])  # ImageNet errs on all of the first group
    answered(tmp_path, "run", right)
    answered(
        tmp_path, "imagenet", np.where(wrong[:, None], np.eye(3)[(label + 1) % 3] * 4.0, right), weights="imagenet"
    )
    (found,) = compare(results_with_answers(run))
    assert (found.samples, found.groups) == (8, 2)
    assert found.interval("run") == (1, 1)
    assert found.interval("imagenet") == (0, 1)
    assert found.gain == pytest.approx(wrong.mean())
    assert found.gain_interval == (0, 1)
    assert found.direction == ""  # zero is not excluded
    assert found.verdict == "undefined"
    path, table = write_report(run, tmp_path / "page.html")
    text = " ".join(" ".join(Page(path.read_text()).text).split())
    assert "8 (2) 100.00 [100.0, 100.0] 50.00 [0.0, 100.0] +50.00 [+0.0, +100.0] undefined" in text
    assert "| 8 (2) | 100.00 [100.0, 100.0] | 50.00 [0.0, 100.0] | +50.00 [+0.0, +100.0] | undefined |" in table
    for name in ("balanced accuracy", "macro F1", "ROC AUC", "calibration error"):
        assert name in text
    counts = np.bincount(label, minlength=3)
    assert f"class-0 {counts[0]} 0 0 class-1 0 {counts[1]} 0 class-2 0 0 {counts[2]}" in text
    assert "Calibration: share of correct predictions by confidence" in text
    assert "nan" not in text.lower().split()


def test_results_of_replaced_shards_do_not_have_the_names_of_the_new_classes(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    label, _ = labels_of(tmp_path)
    answered(tmp_path, "run", np.eye(3)[label], identity={"final": False, "task_digest": "old"})
    html = write_report(run, tmp_path / "page.html")[0].read_text()
    text = " ".join(" ".join(Page(html).text).split())
    assert "class samples multi-task class 0 3 100.00" in text
    assert "true class class 0 class 1 class 2 class 0 3 0 0" in text


def test_the_rule_of_the_paper_is_undefined_below_two_seeds(tmp_path: Path) -> None:
    found = [a_transfer("run", score, mode="finetune") for score in (0.90, 0.92)]
    base = [a_transfer("imagenet", score, mode="finetune") for score in (0.80, 0.82)]
    assert compare([*found, *base])[0].verdict == "better"  # 10 points apart, deviations of 1.4
    assert compare([*found, *base[:1]])[0].verdict == "undefined"
    assert compare([*base, *[one | {"weights": "run"} for one in base]])[0].verdict == "no difference"


@pytest.mark.parametrize(
    ("interval", "direction"), [((0.01, 0.2), "up"), ((-0.2, -0.01), "down"), ((-0.1, 0.2), ""), (None, "")]
)
def test_only_a_difference_whose_interval_excludes_zero_is_coloured(
    interval: tuple[float, float] | None, direction: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Comparison, "gain_interval", interval)
    run = a_run(tmp_path, transfers=[a_transfer("run", 0.9), a_transfer("imagenet", 0.8)])
    page = write_report(run, tmp_path / "page.html")[0].read_text()
    assert re.findall(r'<td class="n (up|down|)">', page) == [direction]


def test_the_page_says_what_the_points_of_the_losses_are(tmp_path: Path) -> None:
    page = write_report(a_run(tmp_path), tmp_path / "page.html")[0].read_text()
    assert "The loss of a task with one class per image is the cross-entropy in nats." in page


def test_the_few_shot_curve_names_its_classifier_and_has_imagenet(tmp_path: Path) -> None:
    curve = [{"k": k, "n_train": 3 * k, "mean": 0.5 + k / 20, "std": 0.01, "scores": []} for k in (1, 2, 4)]
    found = [a_transfer(weights, 0.7, mode="fewshot", curve=curve) for weights in ("run", "imagenet")]
    html = write_report(a_run(tmp_path, transfers=found), tmp_path / "page.html")[0].read_text()
    assert "Few-shot: nearest class mean (SimpleShot)" in html
    assert "multi-task: 55.0 with 1, 60.0 with 2, 70.0 with 4; ImageNet: 55.0 with 1" in html
    assert "training images per class" in html


def test_a_score_that_is_missing_is_said_to_be(tmp_path: Path) -> None:
    notes = ["the val set of Gamma holds one class only: no roc_auc"]
    run = a_run(tmp_path, transfers=[a_transfer("run", None, metric="roc_auc", notes=notes)])
    path, table = write_report(run, tmp_path / "page.html")
    assert "| not stated | not defined | not run | not available | undefined |" in table
    assert "holds one class only" in path.read_text()


def test_a_page_is_the_same_whenever_it_is_written(tmp_path: Path) -> None:
    run = a_run(tmp_path, transfers=[a_transfer("run", 0.875), a_transfer("imagenet", 0.8125)])
    one, other = (write_report(run, tmp_path / name)[0].read_bytes() for name in ("a.html", "b.html"))
    assert one == other


def test_cosines_that_were_logged_are_a_heat_map_of_the_tasks(tmp_path: Path) -> None:
    """Alpha and Beta: 0.3, -0.1 and -0.5, mean -0.1, two of three below 0; Beta and Gamma once."""
    run = a_run(tmp_path)
    logged = [{"Alpha/Beta": 0.3, "Beta/Gamma": 0.9}, {"Alpha/Beta": -0.1}, {"Alpha/Beta": -0.5}]
    with (run.path / "log.jsonl").open("a") as log:
        for number, cosines in enumerate(logged):
            log.write(json.dumps({"event": "cosines", "iteration": 10 * number, "cosines": cosines}) + "\n")
    path, _ = write_report(run, tmp_path / "page.html")
    text = " ".join(" ".join(Page(path.read_text()).text).split())
    assert "Most opposed: Alpha and Beta." in text
    assert (
        "task Alpha Beta Gamma Alpha same task −0.100 2 of 3 not logged Beta −0.100 2 of 3 same task +0.900 0 of 1"
        in text
    )
    assert "Mean cosine: 0.6 at iteration 0, -0.5 at iteration 20" in path.read_text()


def test_a_run_without_cosines_has_no_section_of_gradients(tmp_path: Path) -> None:
    path, _ = write_report(a_run(tmp_path), tmp_path / "page.html")
    assert "Gradients of the tasks" not in path.read_text()


def test_the_page_of_a_soup_says_what_it_is_made_of(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    (run.path / "log.jsonl").unlink()
    soup = {"text": "the average of the weights of a, b"}
    about = json.loads((run.path / "config.json").read_text()) | {"soup": soup}
    (run.path / "config.json").write_text(json.dumps(about))
    path, _ = write_report(run, tmp_path / "page.html")
    text = " ".join(" ".join(Page(path.read_text()).text).split())
    made = "Made from several training runs, not trained itself: the average of the weights of a, b."
    assert f"{made} The settings are those of the first." in text
    assert "Nothing was logged yet" not in text


def test_the_page_says_what_colours_alone_reveal_of_the_scored_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By nearest neighbours among histograms, computed here with numpy; the second page does not compute it again."""
    run = a_run(tmp_path, transfers=[a_transfer("run", 0.8)])
    task = find_task(open_pool(tmp_path / "shards"), "Gamma")
    images = {split: Images([(task, task.rows[split])]) for split in ("train", "val")}
    known, asked = (
        np.stack([np.sqrt(shares(images[split].decode(n))) for n in range(len(task.rows[split]))])
        for split in ("train", "val")
    )
    votes = np.zeros((len(asked), task.num_classes))
    for row, likeness in enumerate(asked @ known.T):
        for place in np.argsort(-likeness, kind="stable")[:10]:
            votes[row, task.rows["train"].label[place]] += likeness[place]
    score = float((votes.argmax(1) == task.rows["val"].label).mean())
    alone = "Gamma: a classifier that sees only colours scores"
    expected = f"{alone} {100 * score:.2f}% accuracy on {len(asked)} validation images"
    page, _ = write_report(run, tmp_path / "report.html")
    assert expected in page.read_text()
    monkeypatch.setattr("mtrain.report.colour_notes.colours_of", None)
    assert expected in write_report(run, tmp_path / "again.html")[0].read_text()


def shares(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The share of pixels in each of 8 x 8 x 8 cells of RGB."""
    table, _ = np.histogramdd(pixels.reshape(-1, 3), bins=8, range=[(0, 256)] * 3)
    return table.ravel() / table.sum()
