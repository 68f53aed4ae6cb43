"""Networks without a run: transfers, features and comparisons of them, beside those of runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from sklearn.metrics import accuracy_score

from dpconvert import card as cards
from dpconvert.manifest.catalog import find, known, manifest_folder
from dpconvert.runtime.progress import Reporter
from mtrain import cli
from mtrain.cli.compare import named_networks
from mtrain.data.pool import find_task, open_pool
from mtrain.errors import UsageError
from mtrain.evaluation.comparing.comparison import Scored, attributed, draws_of, rank_intervals
from mtrain.evaluation.comparing.eva_scores import published_facts, published_for
from mtrain.evaluation.comparing.inference_cost import cost, seconds_of
from mtrain.model.inference import Inference
from mtrain.model.network import shared_network
from mtrain.runs.run_folder import Run
from mtrain.runs.run_names import all_runs
from mtrain.runs.untrained import Start
from mtrain.scoring import bootstrap, metrics
from mtrain.settings import fit_config, untrained
from mtrain.train.fit import fit
from mtrain.transfers import eva
from mtrain.transfers.request import OWN, weights_of
from mtrain.transfers.transfer import source_of
from tests.mtrain.pools import write_pool, write_task
from tests.mtrain.test_backbone_runs import write_network

pytest.importorskip("timm")

SMALL = "shufflenet_v2_x0_5"
QUIET = Reporter(quiet=True)


class Answer(NamedTuple):
    """How a command ended and what it said."""

    status: int
    out: str
    err: str


Command = Callable[..., Answer]


@pytest.fixture
def mtrain(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def call(*words: str | Path) -> Answer:
        monkeypatch.setattr(sys, "argv", ["mtrain", *map(str, words)])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        return Answer(status, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """shards/ with three tasks, tiny.toml and tiny.safetensors, and runs/toy, which left Gamma out."""
    folder = tmp_path_factory.mktemp("networks")
    write_network(folder)
    write_pool(folder / "shards")
    config = fit_config(
        None,
        {
            "shards": folder / "shards",
            "leave_out": ("Gamma",),
            "backbone": SMALL,
            "weights": "random",
            "iterations": 2,
            "batch": 4,
            "size": 32,
            "adapt_batches": 1,
            "workers": 0,
            "device": "cpu",
        },
    )
    assert fit(config, Run(folder / "runs" / "toy"), QUIET) == "finished"
    return folder


@pytest.fixture
def place(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


WITHOUT = ("--workers=0", "--device=cpu")


@pytest.mark.parametrize("mode", ["svm", "logistic", "knn", "fewshot"])
def test_a_network_is_scored_without_a_run(mtrain: Command, place: Path, mode: str) -> None:
    answer = mtrain(
        "transfer",
        "--backbone",
        "tiny.toml",
        "--weights",
        "tiny.safetensors",
        "--target",
        "Gamma",
        "--mode",
        mode,
        "--json",
        *WITHOUT,
    )
    assert answer.status == 0, answer.err
    (found,) = json.loads(answer.out)
    assert (found["task"], found["mode"], found["identity"]["size"]) == ("Gamma", mode, 28)
    assert 0 <= found["score"] <= 1
    assert [run.name for run in all_runs(place / "runs")] == ["toy"]  # no run was made


def test_features_without_a_run_are_those_of_the_table(mtrain: Command, place: Path, tmp_path: Path) -> None:
    words = ("--backbone", "tiny.toml", "--weights", "tiny.safetensors", "--task", "Alpha", "--out", tmp_path)
    answer = mtrain("features", *words, *WITHOUT)
    assert answer.status == 0, answer.err
    found = np.load(tmp_path / "Alpha-val.npy")
    assert found.shape == (8, 32)
    task = find_task(open_pool(place / "shards"), "Alpha")
    from mtrain.data.batches.image_batches import ordered_batches

    network = shared_network("./tiny.toml", "tiny.safetensors").eval()
    (images, _), *_ = ordered_batches(task, task.rows["val"], size=28, batch=8, workers=0, how="bicubic")
    with torch.inference_mode():
        expected = network(network.normalize(images)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--backbone", "uni", "--target", "Alpha"], "uni starts from its own weights"),
        (["--backbone", "tiny.toml", "--weights", "gone.pth", "--target", "Alpha"], "gone.pth: no such weights file"),
        (
            ["--backbone", "tiny.toml", "--weights", "tiny.safetensors"],
            "no task is named, and only a run has left some out; name one with --target TASK",
        ),
        (["--backbone", SMALL, "--run", "toy"], "--run and --backbone cannot be combined"),
        (["--size", "64"], "--size and --backbone-option are for --backbone"),
        (["--backbone", "ctranspath", "--target", "Alpha"], "ctranspath cannot be built"),
        (["--backbone", SMALL, "--weights", "random", "--mode", "joint", "--target", "Alpha"], "joint takes"),
    ],
)
def test_what_does_not_go_together_is_one_line(mtrain: Command, words: list[str], said: str) -> None:
    answer = mtrain("transfer", *words)
    assert answer.status == 1
    assert said in answer.err
    assert answer.err.count("\n") == 1


def test_weights_of_a_run_that_saw_the_task_are_still_refused(mtrain: Command) -> None:
    answer = mtrain(
        "transfer", "--backbone", SMALL, "--weights", "runs/toy/shared.safetensors", "--target", "Alpha", *WITHOUT
    )
    assert answer.status == 1
    assert "were trained on the val set of Alpha" in answer.err


def test_a_part_of_a_file_is_compared_by_its_key(mtrain: Command, tmp_path: Path) -> None:
    torch.manual_seed(1)
    parts = {name: shared_network(SMALL, "random").body.state_dict() for name in ("student", "teacher")}
    path = tmp_path / "two.pth"
    torch.save(parts, path)
    words = ("--target", "Gamma", "--mode", "knn", "--size", "32", "--out", tmp_path / "page.html", *WITHOUT)
    keys = [word for key in parts for word in ("--backbone", f"{SMALL}={path}#{key}")]
    answer = mtrain("compare", *keys, *words, "--json")
    assert answer.status == 0, answer.err
    found = json.loads(answer.out)
    assert [one["name"] for one in found["networks"]] == [f"{SMALL}=two.pth#{key}" for key in parts]
    assert not found["notes"]
    given = [untrained(Path("runs"), {"backbone": SMALL, "weights": str(path), "weights_key": key}) for key in parts]
    for start, part in zip(given, parts.values(), strict=True):  # the key is that of the network, where none is given
        body = source_of(start, str(path)).network.body.state_dict()
        assert all(torch.equal(body[name], tensor) for name, tensor in part.items())
    answer = mtrain("compare", "--backbone", f"{SMALL}={path}", "--run", "toy", *words)
    assert answer.status == 1
    assert "choose one with --backbone NETWORK=FILE#KEY, like #teacher" in answer.err


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/net.pth", "b/net.pth", "a/other.pth"], ["a/net.pth", "b/net.pth", "other.pth"]),
        (["net.pth", "x/net.pth", "y/x/net.pth"], ["net.pth", "x/net.pth", "y/x/net.pth"]),
        (["net.pth", "./net.pth"], ["net.pth", "net.pth (2)"]),
        (["one.pth#student", "one.pth#teacher"], ["one.pth#student", "one.pth#teacher"]),
    ],
)
def test_files_of_one_name_are_distinguished_by_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: list[str], names: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in paths:
        file = Path(path.partition("#")[0])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    found = [name for name, _ in named_networks(Path("runs"), [f"{SMALL}={path}" for path in paths], [], None)]
    assert found == [f"{SMALL}={name}" for name in names]


def test_networks_and_runs_stand_in_one_table(mtrain: Command, place: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    words = (
        "compare",
        "--backbone",
        "tiny.toml=tiny.safetensors",
        "--backbone",
        f"{SMALL}=random",
        "--run",
        "toy",
        "--target",
        "Gamma",
        "--mode",
        "knn",
        "--out",
        page,
        *WITHOUT,
    )
    answer = mtrain(*words, "--json")
    assert answer.status == 0, answer.err
    found = json.loads(answer.out)
    names = [network["name"] for network in found["networks"]]
    assert names == ["tiny", SMALL, "toy"]
    scores = [network["scores"]["Gamma"] for network in found["networks"]]
    ranks = [one["rank"] for one in scores]
    assert sum(ranks) == 6  # of three networks, whatever the ties
    assert ranks[int(np.argmax([one["score"] for one in scores]))] == min(ranks)
    assert "difference" not in scores[0]
    assert scores[1]["difference"] == pytest.approx(scores[1]["score"] - scores[0]["score"])
    low, high = scores[1]["difference_interval"]
    assert low <= high
    assert [network["cost"]["features"] for network in found["networks"]] == [32, 1024, 1024]
    assert all(network["cost"]["milliseconds"] > 0 for network in found["networks"])
    text = page.read_text()
    assert all(name in text for name in names)
    assert f"validation, {scores[0]['samples']} samples, {scores[0]['groups']} groups" in text
    assert f"toy: mean rank {found['networks'][2]['mean_rank']:.2f}" in mtrain(*words).out


def test_the_numbers_of_a_comparison_are_those_of_scikit_learn_and_of_a_plain_bootstrap(
    mtrain: Command, place: Path, tmp_path: Path
) -> None:
    """Scores and ranks; intervals by repeating the samples of each drawn group, the same groups for all networks."""
    answer = mtrain(
        "compare",
        "--backbone",
        "tiny.toml=tiny.safetensors",
        "--backbone",
        f"{SMALL}=random",
        "--target",
        "Gamma",
        "--mode",
        "knn",
        "--out",
        tmp_path / "page.html",
        "--json",
        *WITHOUT,
    )
    found = json.loads(answer.out)["networks"]
    kept = [next((place / "runs").glob(f".network-{stem}*/transfer/Gamma-knn-*.npz")) for stem in ("tiny", SMALL)]
    files = [np.load(path) for path in kept]
    truth, group = files[0]["label"], files[0]["group"]
    right = [file["decisions"].argmax(axis=1) == truth for file in files]
    scores = [accuracy_score(truth, file["decisions"].argmax(axis=1)) for file in files]
    assert [one["scores"]["Gamma"]["score"] for one in found] == pytest.approx(scores)
    assert [one["scores"]["Gamma"]["rank"] for one in found] == rankdata([-score for score in scores]).tolist()
    names = np.unique(group)
    picked = np.random.Generator(np.random.Philox(0)).integers(len(names), size=(1000, len(names)))
    draws = [np.concatenate([np.flatnonzero(group == names[one]) for one in row]) for row in picked]
    drawn = np.array([[of[rows].mean() for rows in draws] for of in right])
    for number, one in enumerate(found):
        own = one["scores"]["Gamma"]
        assert own["interval"] == pytest.approx(np.percentile(drawn[number], [2.5, 97.5]))
        assert one["rank_interval"] == pytest.approx(
            np.percentile(rankdata(-drawn.round(12), axis=0)[number], [2.5, 97.5])
        )
    assert found[1]["scores"]["Gamma"]["difference"] == pytest.approx(scores[1] - scores[0])
    assert found[1]["scores"]["Gamma"]["difference_interval"] == pytest.approx(
        np.percentile(drawn[1] - drawn[0], [2.5, 97.5])
    )


def test_a_failure_of_one_score_leaves_the_others(mtrain: Command, tmp_path: Path) -> None:
    answer = mtrain(
        "compare",
        "--backbone",
        f"{SMALL}=random",
        "--run",
        "toy",
        "--target",
        "Gamma",
        "--target",
        "Alpha",
        "--mode",
        "knn",
        "--out",
        tmp_path / "page.html",
        "--json",
        *WITHOUT,
    )
    assert answer.status == 1
    assert "toy on Alpha: " in answer.err
    assert "these weights were trained on the val set of Alpha" in answer.err
    networks = json.loads(answer.out)["networks"]
    toy = networks[1]["scores"]
    assert toy["Alpha"] is None
    assert toy["Gamma"]["score"] is not None
    assert [one["rank_interval"] for one in networks] == [
        None,
        None,
    ]  # that of Gamma alone belongs to no mean rank here


def test_a_comparison_takes_the_tasks_of_its_run_and_says_what_its_transfers_say(
    mtrain: Command, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no folder shards/ is
    monkeypatch.setattr(bootstrap, "intervals", lambda *_given, **_named: {})
    words = ("--runs", made / "runs", "--run", "toy", "--backbone", f"{SMALL}=random", "--size", "32")
    answer = mtrain("compare", *words, "--target", "Gamma", "--mode", "knn", *WITHOUT)
    assert answer.status == 0, answer.err
    note = next(line for line in answer.out.splitlines() if line.startswith("note: "))
    assert "the val set of Gamma has only one " in note
    assert note.removeprefix("note: ") in (tmp_path / "comparison.html").read_text()


@pytest.mark.parametrize(
    "words",
    [
        ("--run", "toy", "--run", "toy"),
        ("--backbone", f"{SMALL}=random", "--backbone", f"{SMALL}=random", "--run", "toy"),
        ("--backbone", "tiny.toml=tiny.safetensors", "--backbone", "./tiny.toml=../networks/tiny.safetensors"),
    ],
)
def test_a_network_that_is_named_twice_is_said(
    mtrain: Command, place: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    words = tuple(word.replace("../networks", str(place)) for word in words)
    out = tmp_path / "c.html"
    answer = mtrain("compare", *words, "--target", "Gamma", "--mode", "knn", "--out", out, *WITHOUT)
    assert answer.status == 0, answer.err
    assert answer.out.count(", named again") == out.read_text().count(", named again") == 1


def test_a_robustness_without_its_column_is_no_missing_score(mtrain: Command, tmp_path: Path) -> None:
    words = ("--backbone", "tiny.toml=tiny.safetensors", "--backbone", f"{SMALL}=random", "--size", "28")
    how = ("--mode", "knn", "--by", "part", "--pattern", "^gamma-(?P<part>train|val)", "--out", tmp_path / "c.html")
    answer = mtrain("compare", *words, "--target", "Gamma", "--target", "Alpha", *how, *WITHOUT)
    assert answer.status == 1
    assert answer.err.count("no sample of Alpha has a part") == 2
    assert "some scores are missing" not in answer.out


def test_a_column_that_no_task_has_and_a_page_that_cannot_be_written_are_reported_before_the_work(
    mtrain: Command, tmp_path: Path
) -> None:
    words = ("--backbone", "tiny.toml=tiny.safetensors", "--backbone", f"{SMALL}=random", "--size", "28")
    (tmp_path / "file").touch()
    for more, told in (
        (("--by", "nothing", "--out", tmp_path / "c.html"), "no sample of Gamma has an attribute 'nothing'"),
        (("--out", tmp_path / "file" / "c.html"), "file: cannot be written: "),
    ):
        answer = mtrain("compare", *words, "--target", "Gamma", "--mode", "knn", *more, *WITHOUT)
        assert (answer.status, answer.out) == (1, "")
        assert told in answer.err
        assert answer.err.count("\n") == 1


def test_one_network_alone_is_no_comparison(mtrain: Command) -> None:
    assert "nothing to compare" in mtrain("compare", "--run", "toy", "--target", "Gamma").err


def test_draws_are_the_same_groups_for_all_networks(made: Path, tmp_path: Path) -> None:
    """Of a network and itself with one answer turned, the difference in each draw is that answer's share."""
    task = find_task(open_pool(made / "shards"), "Alpha")
    labels = np.array([0, 1, 0, 1, 0, 1])
    groups = np.array(["a", "a", "b", "b", "c", "c"])
    right = np.where(labels == 1, 1.0, -1.0)
    wrong = right * np.array([-1, 1, 1, 1, 1, 1])
    files = {"right": right, "wrong": wrong}
    for name, decisions in files.items():
        np.savez(
            tmp_path / f"{name}.npz", key=np.arange(6).astype(str), label=labels, group=groups, decisions=decisions
        )
    scored = {name: Scored(1.0, None, "val", (tmp_path / f"{name}.npz",), task.metric) for name in files}
    found = draws_of(task, dict(scored))
    picked = np.random.Generator(np.random.Philox(0)).integers(3, size=(1000, 3))
    for draw in range(5):
        rows = np.concatenate([np.flatnonzero(groups == "abc"[one]) for one in picked[draw]])
        for name, decisions in files.items():
            expected = metrics.score(task.metric, labels[rows], decisions[rows])
            assert found[name][draw] == pytest.approx(expected, nan_ok=True)


def test_mean_ranks_are_drawn_for_each_task_on_its_own() -> None:
    """Eight tasks with equal draws, half of which are won by either network: of eight fair coins, 1 to 7 show heads in
    99% of the draws. If the tasks rose and fell together, it would be all or none.
    """
    draws = {"a": np.tile([0.0, 1.0], 500), "b": np.full(1000, 0.5)}
    found = rank_intervals(("a", "b"), {f"Task{number}": draws for number in range(8)})
    assert found["a"] == found["b"] == (1.125, 1.875)
    assert rank_intervals(("a", "b"), {"One": draws})["a"] == (1.0, 2.0)
    assert rank_intervals(("a", "b"), {"One": draws, "Two": {"a": draws["a"]}}) == {}


def test_a_note_names_the_tasks_and_networks_that_it_is_on_where_they_are_not_all() -> None:
    notes = {
        "few groups": [("one", "A"), ("two", "A")],
        "scaled": [("two", "A"), ("two", "B")],
        "the val set of B is small": [("one", "B"), ("two", "B")],
        "mixed": [("one", "A"), ("one", "B"), ("two", "B")],
        "all": [(network, task) for network in ("one", "two") for task in ("A", "B")],
    }
    assert list(attributed(notes, ["one", "two"], ["A", "B"])) == [
        "A: few groups",
        "two: scaled",
        "the val set of B is small",
        "A: one: mixed",
        "B: mixed",
        "all",
    ]


def test_an_interval_of_nothing_is_none() -> None:
    assert bootstrap.interval(np.array([np.nan, np.nan])) is None
    assert bootstrap.interval(np.array([0.0, 1.0, np.nan])) == pytest.approx((0.025, 0.975))
    assert bootstrap.paired(np.array([0, 1]), {"x": np.array([0.0, 1.0])}, ["a", "a"], 2, "accuracy") == {}


def test_cost_counts_parameters_and_memory_of_the_weights() -> None:
    network = shared_network(SMALL, "random")
    found: Any = cost(network, 32, "cpu")
    assert found.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert found.mib_weights * 2**20 >= 4 * found.parameters
    assert (found.device, found.mib_image, found.features) == ("cpu", None, 1024)


@pytest.mark.parametrize(
    ("passes", "expected", "count"),
    [([4.0, 0.2, 0.1, 0.3, 0.2], 0.1, 5), ([0.02], 0.02, 20), ([0.2], 0.2, 5), ([12.0], 12.0, 1), ([6.0], 6.0, 2)],
    ids=["one is disturbed", "fast", "half a second", "slow", "rather slow"],
)
def test_the_fastest_of_several_passes_counts(
    passes: list[float], expected: float, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, done = 0.0, 0

    def run() -> None:
        nonlocal now, done
        now += passes[done % len(passes)]
        done += 1

    monkeypatch.setattr("mtrain.evaluation.comparing.inference_cost.time.perf_counter", lambda: now)
    assert seconds_of(run) == pytest.approx(expected)
    assert done == count


def test_cost_is_that_of_features_in_the_precision_of_transfers(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA, bfloat16."""
    seen: list[torch.dtype] = []
    network = shared_network(SMALL, "random")
    network.body.register_forward_hook(lambda _body, _images, features: seen.append(features.dtype))
    monkeypatch.setattr(Inference, "on", lambda device: Inference(device, torch.bfloat16))
    cost(network, 32, "cpu")
    assert set(seen) == {torch.bfloat16}


def test_a_network_without_a_run_has_a_place_of_its_own_by_table_and_size(made: Path, tmp_path: Path) -> None:
    given = {"backbone": str(made / "tiny.toml"), "weights": str(made / "tiny.safetensors")}
    one, other = untrained(tmp_path, given), untrained(tmp_path, given | {"size": 42})
    assert isinstance(one, Start)
    assert one.path != other.path
    assert one.path.parent == tmp_path
    assert weights_of(one, OWN) == given["weights"]
    assert source_of(one, given["weights"]).network.num_features == 32
    with pytest.raises(UsageError, match="is not a run"):
        one.check_finished()


def write_eva_task(folder: Path) -> Path:
    """A tiny task that calls itself eva's BACH."""
    write_task(folder / "BACH18Photos", classes=4, sizes={"train": 24, "val": 16})
    card = cards.load(folder / "BACH18Photos").model_copy(update={"split_policy": "eva"})
    (folder / "BACH18Photos" / cards.FILE_NAME).write_bytes(cards.dump(card))
    return folder / "BACH18Photos"


def test_five_runs_of_eva_are_compared_by_their_means_beside_the_published_scores(
    mtrain: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eva, "RECIPE", eva.EvaRecipe(steps=30, rate=0.01, batch=8))
    task, page = write_eva_task(tmp_path), tmp_path / "page.html"
    networks = ("--backbone", "tiny.toml=tiny.safetensors", "--backbone", f"{SMALL}=random", "--size", "28")
    words = (
        "compare",
        "--runs",
        tmp_path / "runs",
        *networks,
        "--target",
        task,
        "--mode",
        "eva",
        "--paper",
        "--out",
        page,
    )
    answer = mtrain(*words, "--json", *WITHOUT)
    assert answer.status == 0, answer.err
    found = json.loads(answer.out)
    assert found["tasks"][0]["published"]["scores"]["virchow2"] == 0.883
    decisions = {}
    for network, folder in zip(found["networks"], ("tiny", SMALL), strict=True):
        (start,) = [path for path in (tmp_path / "runs").iterdir() if folder in path.name]
        files = [np.load(path) for path in sorted((start / "transfer").glob("*-eva-*.npz"))]
        assert len(files) == 5
        decisions[network["name"]] = [file["decisions"] for file in files]
    labels, groups = files[0]["label"], files[0]["group"]

    def score(one: Any, rows: Any) -> float:
        return float(np.mean([(one[rows].argmax(1) == c)[labels[rows] == c].mean() for c in np.unique(labels[rows])]))

    every = np.arange(len(labels))
    names, of = np.unique(groups, return_inverse=True)
    picked = np.random.Generator(np.random.Philox(0)).integers(len(names), size=(1000, len(names)))
    rows = [np.concatenate([np.flatnonzero(of == group) for group in draw]) for draw in picked]
    drawn = {n: np.array([np.mean([score(one, r) for one in runs]) for r in rows]) for n, runs in decisions.items()}
    for network in found["networks"]:
        told = network["scores"]["BACH18Photos"]
        scores = [score(one, every) for one in decisions[network["name"]]]
        assert told["score"] == pytest.approx(np.mean(scores))
        assert (told["runs"], told["deviation"]) == (5, pytest.approx(np.std(scores, ddof=1)))
        assert told["interval"] == pytest.approx(np.percentile(drawn[network["name"]], [2.5, 97.5]))
    one, other = drawn.values()
    told = found["networks"][1]["scores"]["BACH18Photos"]
    assert told["difference_interval"] == pytest.approx(np.percentile(other - one, [2.5, 97.5]))
    ranks = 1 + (other > one + 1e-9) + 0.5 * (abs(other - one) < 1e-9)
    assert found["networks"][0]["rank_interval"] == pytest.approx(np.percentile(ranks, [2.5, 97.5]))
    text = page.read_text()
    assert text.count("<svg") == 2
    assert "kaiko-eva 0.4.5" in text
    assert "(mean of 5 runs" in mtrain(*words, *WITHOUT).out


def test_the_page_of_a_run_shows_the_published_scores_on_request(
    mtrain: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eva, "RECIPE", eva.EvaRecipe(steps=30, rate=0.01, batch=8))
    task = write_eva_task(tmp_path)
    assert mtrain("transfer", "--run", "toy", "--target", task, "--mode", "eva", *WITHOUT).status == 0
    table = mtrain("report", "--run", "toy", "--paper", "--out", tmp_path / "report.html").out
    lines = [line for line in table.splitlines() if line.endswith(("| published |", "| here |"))]
    rows = [float(line.split(" | ")[1]) for line in lines]
    assert len(rows) == 16
    assert rows == sorted(rows, reverse=True)
    assert "kaiko-eva 0.4.5" in (tmp_path / "report.html").read_text()
    assert "kaiko-eva" not in mtrain("report", "--run", "toy", "--out", tmp_path / "report.html").out
    for file in Path("runs/toy/transfer").glob("BACH18Photos-eva-*"):
        file.unlink()
    assert "none of these is here" in mtrain("report", "--run", "toy", "--paper", "--out", tmp_path / "r.html").err


def test_the_page_of_a_run_shows_the_robustness_of_its_features(mtrain: Command, tmp_path: Path) -> None:
    words = ("--run", "toy", "--target", "Gamma", "--by", "part", "--pattern", "^gamma-(?P<part>train|val)")
    answer = mtrain("robustness", *words, "--k", "3", "--json", *WITHOUT)
    assert answer.status == 0, answer.err
    (found,) = json.loads(answer.out)
    assert [one["centre"] for one in found["centres"]] == ["train", "val"]
    table = mtrain("report", "--run", "toy", "--out", tmp_path / "report.html").out
    row = r"| Gamma | multi-task | part of pattern ^gamma-(?P&lt;part>train\|val) | 3 | "
    assert f"{row}{100 * found['index']:.2f}" in table
    assert "Robustness index" in (tmp_path / "report.html").read_text()


def test_published_scores_need_their_recipe_and_sets(mtrain: Command, tmp_path: Path) -> None:
    networks = ("--backbone", "tiny.toml=tiny.safetensors", "--backbone", f"{SMALL}=random")
    answer = mtrain(
        "compare", *networks, "--target", "Gamma", "--mode", "knn", "--paper", "--out", tmp_path / "p.html", *WITHOUT
    )
    assert "none of these is here" in answer.err
    result = {"mode": "eva", "split": "eva", "task": "PatchCamelyon", "set": "test"}
    found = published_for(result)
    assert found is not None
    assert (found.scores["virchow2"], next(iter(found.scores))) == (0.938, "hibou-l")
    for change in ({"mode": "svm"}, {"split": "strict"}, {"task": "Lung"}, {"task": "MHIST"}):
        assert published_for(result | change) is None


def test_the_published_networks_have_tables() -> None:
    facts = published_facts()
    assert facts["scores"].keys() <= {path.stem for path in (manifest_folder() / "backbones").glob("*.toml")}
    tasks = {find(name).under("eva").task for name in known() if "eva" in find(name).split}
    assert {column["task"] for column in facts["columns"].values()} == tasks
    assert all(of.keys() == facts["columns"].keys() for of in facts["scores"].values())
