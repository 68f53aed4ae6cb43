"""What weights were trained on goes with them, and nothing that they have seen is scored."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from mtrain.config import FitConfig
from mtrain.data.pool import find_task, open_pool
from mtrain.errors import UsageError
from mtrain.export import export
from mtrain.model.weight_files.weights import seen_by
from mtrain.runs.run_folder import Run
from mtrain.runs.seen import Seen
from mtrain.settings import check_names
from mtrain.train.fit import fit
from mtrain.transfers import transfer as of_transfer
from mtrain.transfers.finetune_rate import Recipe
from mtrain.transfers.transfer import TransferOptions, source_of, transfer
from tests.mtrain.pools import write_pool, write_task
from tests.mtrain.test_fit import Notes

OPTIONS = TransferOptions(mode="knn", workers=0, recipe=Recipe(epochs=1, rates=(0.01,), batch=8, device="cpu"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Alpha; Beta and Gamma, of which Gamma says that it shares slides with Beta."""
    folder = write_pool(tmp_path_factory.mktemp("pool") / "shards", ["Alpha", "Beta"], sizes={"train": 12, "val": 8})
    write_task(folder / "Gamma", seed=5, sizes={"train": 12, "val": 8}, related=["beta"])
    return folder


def trained(shards: Path, path: Path, notes: Notes | None = None, **changed: Any) -> Run:
    settings = {"backbone": "shufflenet_v2_x0_5", "weights": "random", "iterations": 1, "warmup": 0, "batch": 4}
    settings |= {"adapt_batches": 0, "size": 32, "workers": 0, "device": "cpu", "shards": str(shards)}
    run = Run(path)
    assert fit(FitConfig(**settings | changed), run, notes or Notes()) == "finished"
    return run


@pytest.fixture(scope="module")
def first(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained on Beta and Gamma."""
    return trained(shards, tmp_path_factory.mktemp("first") / "runs" / "first", leave_out=("Alpha",))


def scored(run: Run, shards: Path, name: str, mode: str = "knn", weights: str = "run") -> dict[str, Any]:
    options = TransferOptions(mode=mode, workers=0, recipe=OPTIONS.recipe)
    return transfer(source_of(run, weights), find_task(open_pool(shards), name), options, Notes())


def alone(shards: Path, folder: Path, *names: str) -> Path:
    """A pool of these tasks."""
    for name in names:
        shutil.copytree(shards / name, folder / name)
    return folder


def test_relations_count_in_both_directions_and_from_task_to_task() -> None:
    seen = Seen({"A-1": ("train",), "B": ("val",), "C": ("train",)}, {"B": ("M",), "M": ("a_1",)})
    assert seen.of_relatives("A_1", ()) == {"B": ("val",)}
    assert seen.of_relatives("Other", ("m",)) == {"A-1": ("train",), "B": ("val",)}
    assert seen.of_relatives("Other", ()) == {}
    assert Seen.of(seen.json()) == seen
    assert (seen | Seen({"B": ("train",)})).of_task("b") == ("val", "train")


@pytest.mark.parametrize("mode", ["knn", "finetune"])
def test_what_shares_slides_with_a_task_that_was_trained_on_is_not_scored(
    shards: Path, tmp_path: Path, mode: str
) -> None:
    """Beta's card does not name Gamma: that of Gamma names Beta."""
    run = trained(alone(shards, tmp_path / "pool", "Alpha", "Gamma"), tmp_path / "runs" / "a", train_on="train")
    with pytest.raises(UsageError, match=r"trained on the train set of Gamma, which is related to Beta") as caught:
        scored(run, shards, "Beta", mode)
    assert "--leave-out Beta" in str(caught.value)
    run = trained(alone(shards, tmp_path / "other", "Alpha", "Beta"), tmp_path / "runs" / "b")
    with pytest.raises(UsageError, match=r"trained on the train set of Beta, which is related to Gamma"):
        scored(run, shards, "Gamma", mode)


def test_a_joint_target_takes_related_tasks_to_their_training_sets(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(shards, tmp_path / "runs" / "joint", joint=("Beta",))
    assert run.trained_on() == {"Alpha": ("train", "val"), "Beta": ("train",), "Gamma": ("train",)}
    assert scored(run, shards, "Beta", "joint")["set"] == "val"
    about = run.about()
    run.write("config.json", about | {"trained_on": about["trained_on"] | {"Gamma": ["train", "val"]}})
    monkeypatch.setattr(of_transfer, "check_weights", lambda _run: None)  # weights of an earlier version state less
    with pytest.raises(UsageError, match=r"trained on the val set of Gamma, which is related to Beta.*--joint Beta"):
        scored(run, shards, "Beta", "joint")


@pytest.mark.parametrize("given", [{"leave_out": ("Beta",)}, {"leave_out": ("gamma",)}, {"tasks": ("Alpha",)}])
def test_a_joint_target_that_the_training_does_not_include_is_refused(
    shards: Path, tmp_path: Path, given: dict[str, tuple[str, ...]]
) -> None:
    with pytest.raises(UsageError, match=r"--joint Beta: .* does not include Beta.*Alpha.*--leave-out, --tasks or"):
        trained(shards, tmp_path / "runs" / "none", joint=("beta",), **given)
    config = FitConfig(shards=str(shards), joint=("beta",), weights="random", **given)
    with pytest.raises(UsageError, match=r"--joint Beta: .* does not include Beta"):
        check_names(config)


@pytest.mark.parametrize("kind", ["shared", "checkpoint", "safetensors", "torchvision", "tuned"])
def test_a_run_inherits_what_its_start_was_trained_on(shards: Path, first: Run, tmp_path: Path, kind: str) -> None:
    if kind in ("safetensors", "torchvision"):
        out = tmp_path / "exported"
        weights = out / export(first, kind, out, accepted=True).files[0]
    elif kind == "tuned":
        scored(first, shards, "Alpha", "finetune")
        (weights,) = first.path.glob("transfer/tuned/*/rate-*.safetensors")
    else:
        weights = first.weights if kind == "shared" else min(first.checkpoints.iterdir())
    both = {"Beta": ("train", "val"), "Gamma": ("train", "val")}
    assert seen_by(weights).sets == both | ({"Alpha": ("train",)} if kind == "tuned" else {})
    if kind in ("checkpoint", "tuned"):
        return
    notes = Notes()
    run = trained(shards, tmp_path / "runs" / "second", notes, leave_out=("Beta",), weights=str(weights))
    assert [said for said in notes.said if said.startswith("Beta is left out, but --weights were trained on")]
    assert seen_by(run.weights).sets == both | {"Alpha": ("train", "val")}
    with pytest.raises(UsageError, match=r"trained on the val set of Beta: a score on it says nothing") as caught:
        scored(run, shards, "Beta")
    assert f"from other weights than {weights}" in str(caught.value)
    third = trained(shards, tmp_path / "runs" / "third", leave_out=("Beta",), weights=str(run.weights))
    with pytest.raises(UsageError, match="says nothing"):
        scored(third, shards, "Gamma")


def test_weights_of_others_have_seen_nothing_that_is_known(tmp_path: Path) -> None:
    assert seen_by("imagenet") == seen_by(tmp_path / "none.pth") == Seen()


def test_a_run_that_goes_on_keeps_what_its_start_was_trained_on(shards: Path, first: Run, tmp_path: Path) -> None:
    weights = tmp_path / "start.safetensors"
    shutil.copyfile(first.weights, weights)
    run = trained(shards, tmp_path / "runs" / "second", leave_out=("Beta",), weights=str(weights))
    weights.unlink()
    run.weights.unlink()
    again = trained(shards, run.path, leave_out=("Beta",), weights=str(weights))
    assert seen_by(again.weights).sets["Beta"] == ("train", "val")
    assert again.started_from().sets == {"Beta": ("train", "val"), "Gamma": ("train", "val")}
