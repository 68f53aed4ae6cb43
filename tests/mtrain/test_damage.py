"""A bit flipped, or a value edited, in each kind of file that is read again: one line that names it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

from mtrain.cli import group
from mtrain.config import FitConfig
from mtrain.data.batches.images import Images
from mtrain.data.pool import open_pool
from mtrain.disk import documents
from mtrain.errors import RunError, ShardError, UsageError, UserError
from mtrain.runs.run_folder import Run
from mtrain.train.fit import fit
from mtrain.transfers.request import targets
from tests.mtrain.pools import write_pool, write_task
from tests.mtrain.sweeps import write_sweep
from tests.mtrain.test_fit import Notes

SETTINGS = {
    "backbone": "shufflenet_v2_x0_5",
    "weights": "random",
    "iterations": 2,
    "warmup": 1,
    "batch": 4,
    "size": 32,
    "adapt_batches": 1,
    "workers": 0,
    "validate_every": 0,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """shards/ of three tasks, and runs/toy, which left Gamma out and was transferred to it."""
    place = tmp_path_factory.mktemp("made")
    write_pool(place / "shards", sizes={"train": 12, "val": 8, "test": 4})
    config = FitConfig.model_validate({**SETTINGS, "shards": str(place / "shards"), "leave_out": ("Gamma",)})
    fit(config, Run(place / "runs" / "toy"), Notes())
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "p")
    monkeypatch.chdir(tmp_path / "p")
    return tmp_path / "p"


def mtrain(*words: str) -> Result:
    """What the command answers: its errors are those of UserError, and nothing else."""
    found = CliRunner().invoke(group, list(words))
    assert found.exception is None or isinstance(found.exception, UserError | SystemExit), found.exc_info
    return found


def transfer(*more: str) -> Result:
    return mtrain("transfer", "--workers", "0", "--device", "cpu", "--shards", "shards", *more)


def flip(path: Path, at: int | None = None) -> None:
    """One bit, by default in the last byte: of a tensor file that is a tensor's."""
    data = bytearray(path.read_bytes())
    data[-1 if at is None else at] ^= 1
    path.write_bytes(data)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def line(found: Result) -> str:
    assert found.exit_code != 0
    assert "\n" not in str(found.exception)
    return str(found.exception)


# --- what is refused


def test_the_weights_of_a_run(place: Path) -> None:
    flip(Path("runs/toy/shared.safetensors"))
    told = line(transfer())
    assert told.startswith("runs/toy/shared.safetensors: changed since it was written; `mtrain fit` recreates")
    assert transfer("--weights", "random").exit_code == 0


@pytest.mark.parametrize("where", ["tensor", "class"])
def test_the_heads_of_a_run(place: Path, where: str) -> None:
    path = Path("runs/toy/heads.safetensors")
    flip(path, None if where == "tensor" else path.read_bytes().index(b"class-1"))
    told = line(mtrain("export", "--task", "Alpha"))
    assert told.startswith("runs/toy/heads.safetensors: changed since it was written")


def test_every_bit_of_a_tensor_file_counts(place: Path) -> None:
    path = Path("runs/toy/heads.safetensors")
    whole = path.read_bytes()
    from mtrain.model.heads import load_heads

    expected = load_heads(path)
    for at in np.random.default_rng(0).integers(len(whole), size=60).tolist():
        path.write_bytes(whole)
        flip(path, at)
        try:
            found = load_heads(path)
        except RunError:
            continue
        assert {name: head.about for name, head in found.items()} == {n: head.about for n, head in expected.items()}
        assert all((found[name].weight == expected[name].weight).all() for name in expected)


@pytest.mark.parametrize(("old", "new"), [('"lr": 0.0001', '"lr": 0.1'), ('"Gamma"', '"Alpha"'), ("{", "")])
def test_the_configuration_of_a_run(place: Path, old: str, new: str) -> None:
    edit(Path("runs/toy/config.json"), old, new)
    for told in (line(transfer()), line(mtrain("fit", "--run", "toy"))):
        assert told.startswith("runs/toy/config.json: c")
        assert told.endswith("; restore the original file, or train another run")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (r'"score": [\d.]+', '"score": 0.987', "changed since"),
        (r'"score": [\d.]+', '"score": 7.0', "changed since"),
        ("}", "", "cannot be read"),
    ],
)
def test_a_transfer_is_not_reported_and_is_made_again(place: Path, old: str, new: str, told: str) -> None:
    assert transfer().exit_code == 0
    (path,) = Path("runs/toy/transfer").glob("*.json")
    whole = json.loads(path.read_text())
    path.write_text(re.sub(old, new, path.read_text()))
    assert line(mtrain("report")).startswith(f"{path}: {told}")
    again = transfer()
    assert f"{path}: {told}" in again.stderr
    assert json.loads(path.read_text())["score"] == whole["score"]


def test_cached_features_are_computed_again(place: Path) -> None:
    first = transfer().stdout
    for path in Path("runs/.features").glob("*"):
        flip(path)
    shutil.rmtree("runs/toy/transfer")
    again = transfer()
    assert again.stderr.count("changed since it was written; they are computed again") == 2
    assert again.stdout == first


@pytest.mark.parametrize("name", ["sweep.json", "cells/{}.json", "selected.json"])
def test_the_files_of_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    store = write_sweep(tmp_path / "sweeps" / "toy", lambda c, _task, _seed: 0.5 + c.lr)
    assert mtrain("select").exit_code == 0
    path = store.path / name.format("0" * 24)
    edit(path, "0.001", "0.9")
    command = ["evaluate", "--sweep", "toy"] if name == "selected.json" else ["select"]
    told = line(mtrain(*command))
    remedy = "run `mtrain select` again" if name == "selected.json" else "run the sweep again"
    assert told.startswith(f"{path.relative_to(tmp_path)}: changed since it was written; {remedy}")


def test_what_is_no_score_is_refused_whatever_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_sweep(tmp_path / "sweeps" / "toy", lambda *_: 1.5)
    assert "scores.Lung.score: must be at most 1" in line(mtrain("select"))
    shutil.rmtree("sweeps")
    write_sweep(tmp_path / "sweeps" / "toy", lambda *_: -0.25)
    assert "scores.Lung: not a score of accuracy: -0.25" in line(mtrain("select"))


def test_an_evaluation(tmp_path: Path) -> None:
    from mtrain.evaluation.paper_tables import read_evaluations

    content = {
        "task": "T",
        "metric": "accuracy",
        "mode": "svm",
        "source": "imagenet",
        "backbone": "b",
        "seed": 0,
        "set": "test",
        "score": 0.58,
        "n_train": 9,
    }
    path = tmp_path / "T" / "a.json"
    documents.write_document(path, content)
    assert [one.score for one in read_evaluations(tmp_path)] == [0.58]
    edit(path, "0.58", "0.99")
    with pytest.raises(RunError, match="changed since it was written; evaluate again"):
        read_evaluations(tmp_path)
    documents.write_document(path, {**content, "score": 58.0})
    with pytest.raises(RunError, match="not an evaluation: score: must be at most 1"):
        read_evaluations(tmp_path)


def test_an_image(place: Path) -> None:
    shard = Path("shards/Gamma/train-000000.tar")
    with tarfile.open(shard) as tar:
        member = next(iter(tar))
    flip(shard, member.offset_data + member.size // 2)
    told = line(transfer())
    assert told.startswith("shards/Gamma/train-000000.tar: Gamma: cannot read image gamma-train-00000: changed since")
    assert "dpconvert verify" in told


def test_an_image_is_checked_once_and_not_at_all_on_request(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (task,) = [task for task in open_pool("shards").tasks if task.name == "Gamma"]
    images, unchecked = (Images([(task, task.rows["train"])], check=check) for check in (None, False))
    images.decode(0)
    images.sha256 = unchecked.sha256 = np.zeros_like(images.sha256)
    images.decode(0)
    unchecked.decode(1)
    with pytest.raises(ShardError, match="changed since it was written"):
        images.decode(1)
    monkeypatch.setenv("MTRAIN_CHECK_IMAGES", "0")
    assert not Images([(task, task.rows["train"])]).checks


@pytest.mark.parametrize("to", ["safetensors", "torchvision"])
def test_an_export(place: Path, to: str) -> None:
    assert mtrain("export", "--to", to, "--out", "out").exit_code == 0
    subprocess.run(["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"], cwd="out", check=True)
    (path,) = [path for path in Path("out").iterdir() if path.suffix in (".safetensors", ".pth")]
    assert transfer("--weights", str(path)).exit_code == 0
    flip(path, path.stat().st_size // 2)
    assert line(transfer("--weights", str(path))).startswith(f"{path}: changed since it was written; export it again")


@pytest.mark.parametrize("out", ["runs/toy", "someones"])
def test_an_export_overwrites_nothing_but_an_earlier_export(place: Path, out: str) -> None:
    Path("someones").mkdir()
    Path("someones/README.md").write_text("mine")
    before = {path: path.read_bytes() for path in Path(out).iterdir() if path.is_file()}
    told = line(mtrain("export", "--to", "safetensors", "--out", out))
    assert told.startswith(f"{out}: this folder holds other files, which an export would overwrite; found ")
    assert {path: path.read_bytes() for path in Path(out).iterdir() if path.is_file()} == before
    for _ in range(2):
        assert mtrain("export", "--to", "safetensors", "--out", "fresh").exit_code == 0


def test_an_export_leaves_nothing_of_an_earlier_one(place: Path) -> None:
    first = mtrain("export", "--to", "torchvision", "--out", "out")
    assert (Path("out/model.pth").is_file(), "removed" in first.stderr) == (True, False)
    Path("out/notes.txt").write_text("mine")
    second = mtrain("export", "--to", "safetensors", "--out", "out")
    assert second.stderr.splitlines()[-1] == "out: files of the earlier export were removed: model.pth"
    named = {line.split()[1] for line in Path("out/SHA256SUMS").read_text().splitlines()}
    assert {path.name for path in Path("out").iterdir()} == named | {"SHA256SUMS", "notes.txt"}
    subprocess.run(["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"], cwd="out", check=True)


def test_the_folder_of_a_run_stands_for_its_weights(place: Path) -> None:
    by_file = transfer("--weights", "runs/toy/shared.safetensors").stdout
    assert transfer("--weights", "runs/toy").stdout == by_file.replace("/shared.safetensors", "")


# --- what is made again


@pytest.mark.parametrize("lost", ["shared.safetensors", "heads.safetensors"])
@pytest.mark.parametrize("harm", [Path.unlink, flip])
def test_weights_that_are_gone_or_damaged_are_made_again_from_the_checkpoint(
    place: Path, lost: str, harm: Callable[[Path], None]
) -> None:
    path = Path("runs/toy") / lost
    whole = path.read_bytes()
    harm(path)
    if lost == "shared.safetensors" and not path.exists():
        assert "stopped" in mtrain("runs").stdout
        told = "runs/toy: the weights of this run are missing: no shared.safetensors; restore them with: mtrain fit"
        assert line(transfer()).startswith(told)
    again = mtrain("fit", "--run", "toy")
    assert again.exit_code == 0, again.output
    assert path.read_bytes() == whole
    assert "resumed after iteration 2 of 2" in again.stderr


def test_a_run_without_weights_and_checkpoints_begins_anew_and_says_so(place: Path) -> None:
    whole = Path("runs/toy/shared.safetensors").read_bytes()
    shutil.rmtree("runs/toy/checkpoints")
    Path("runs/toy/shared.safetensors").unlink()
    again = mtrain("fit", "--run", "toy")
    assert "toy: neither weights nor a checkpoint exist: the run starts from the beginning" in again.stderr
    assert Path("runs/toy/shared.safetensors").read_bytes() == whole


def test_fine_tuned_weights_are_made_again(place: Path) -> None:
    words = ("--mode", "finetune", "--epochs", "1", "--lr", "0.001")
    first = transfer(*words)
    assert first.exit_code == 0, first.exception
    (path,) = Path("runs/toy/transfer/tuned").glob("*/rate-0.001.safetensors")
    whole = path.read_bytes()
    flip(path)
    for result in Path("runs/toy/transfer").glob("*.json"):
        result.unlink()
    again = transfer(*words)
    assert f"{path}: changed since it was written; the rate is trained again" in again.stderr
    assert again.stdout == first.stdout
    assert path.read_bytes() == whole


def test_without_a_checkpoint_weights_are_not_trained_again_over_the_loss_of_the_heads(place: Path) -> None:
    shutil.rmtree("runs/toy/checkpoints")
    flip(Path("runs/toy/heads.safetensors"))
    told = line(mtrain("fit", "--run", "toy"))
    assert "no checkpoint exists to restore it from; remove runs/toy/shared.safetensors to train" in told


# --- files of earlier versions


def test_a_document_without_a_digest_is_read_and_named(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.json" for number in range(5)]
    for path in paths:
        path.write_text('{"a": 1}')
        assert documents.read_document(path, "") == {"a": 1}
    (told,) = documents.unchecked()
    assert told.startswith("5 files of an earlier version without a digest, which cannot be checked: ")
    assert told.endswith(f"{paths[2]} and 2 more")
    assert documents.unchecked() == []


def test_the_order_of_keys_and_the_kinds_of_python_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    content = {"b": (1, 2.5), "a": {3: None}}
    documents.write_document(path, content)
    assert documents.read_document(path, "") == {"b": [1, 2.5], "a": {"3": None}}
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True, indent=3))
    assert documents.read_document(path, "") == {"b": [1, 2.5], "a": {"3": None}}


def test_a_card(place: Path) -> None:
    edit(Path("shards/Alpha/task.json"), '"related": []', '"related": ["Gamma"]')
    told = line(mtrain("fit", "--shards", "shards", "--leave-out", "Gamma"))
    assert "shards/Alpha/task.json: changed since it was written; convert the source again" in told


# --- numbers that are none


def spoiled(path: Path, to: Path, value: float) -> Path:
    """The weights at `path` with one number changed."""
    state = load_file(path)
    state["conv1.0.weight"].view(-1)[0] = value
    save_file(state, to)
    return to


@pytest.mark.parametrize("mode", ["svm", "logistic", "knn", "fewshot", "finetune"])
def test_weights_that_are_not_finite_are_named_before_any_classifier(place: Path, mode: str) -> None:
    weights = spoiled(Path("runs/toy/shared.safetensors"), Path("nan.safetensors"), float("nan"))
    told = line(transfer("--mode", mode, "--weights", str(weights)))
    assert told == "nan.safetensors: weights that are not finite: conv1.0.weight; give others with --weights"


@pytest.mark.parametrize("mode", ["svm", "knn", "fewshot"])
def test_features_that_are_not_finite_are_one_line_with_task_and_weights(place: Path, mode: str) -> None:
    state = {
        name: tensor * 1e30 if tensor.is_floating_point() else tensor
        for name, tensor in load_file("runs/toy/shared.safetensors").items()
    }
    save_file(state, "huge.safetensors")
    told = line(transfer("--mode", mode, "--weights", "huge.safetensors"))
    first = "of 12 of 12 images of train, the first gamma-train-00000"
    assert told.startswith(
        f"huge.safetensors: Gamma: features that are not finite, {first}; no classifier can use them"
    )
    assert not list(Path("runs/toy/transfer").glob("*.json"))


def changed_weights(change: Callable[[str, torch.Tensor], torch.Tensor]) -> str:
    state = load_file("runs/toy/shared.safetensors")
    save_file({name: change(name, tensor) for name, tensor in state.items()}, "changed.safetensors")
    return "changed.safetensors"


@pytest.mark.parametrize("words", [("transfer", "--mode", "knn"), ("features",), ("fit",)])
def test_weights_that_make_no_network_are_named(place: Path, words: tuple[str, ...]) -> None:
    training = ("--run", "other", "--backbone", "shufflenet_v2_x0_5", "--size", "32", "--batch", "4")
    words = (*words, *(training if "fit" in words else ()), "--shards", "shards", "--weights")
    told = line(mtrain(*words, changed_weights(lambda _name, tensor: torch.zeros_like(tensor))))
    assert "changed.safetensors: weights that are all zero; give other" in told
    told = line(mtrain(*words, changed_weights(lambda name, tensor: tensor - 9 if "running_var" in name else tensor)))
    assert "changed.safetensors: negative variances of batch normalization: conv1.1.running_var; give other" in told


@pytest.mark.parametrize("mode", ["svm", "knn", "fewshot"])
def test_features_that_are_all_equal_are_one_line_with_task_and_weights(place: Path, mode: str) -> None:
    weights = changed_weights(lambda name, tensor: 0 * tensor if name == "conv5.0.weight" else tensor)
    told = line(transfer("--mode", mode, "--weights", weights))
    assert told == (
        "changed.safetensors: Gamma: the features of all 12 images of train are equal; no classifier can use them: "
        "give other weights"
    )


def test_a_training_does_not_start_from_weights_that_are_not_finite(place: Path) -> None:
    weights = spoiled(Path("runs/toy/shared.safetensors"), Path("nan.safetensors"), float("inf"))
    words = [
        word
        for name, value in SETTINGS.items()
        if name not in ("weights", "adapt_batches")
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    told = line(mtrain("fit", "--shards", "shards", "--weights", str(weights), "--run", "other", *words))
    assert told.endswith("nan.safetensors: weights that are not finite: conv1.0.weight; give other --weights")
    assert not Path("runs/other").exists()


def test_few_shot_where_the_metric_is_not_defined_says_so_again_and_again(place: Path) -> None:
    write_task(Path("shards/Solo"), sizes={"train": 8, "val": 1})
    for _ in range(2):
        found = transfer("--mode", "fewshot", "--target", "Solo")
        assert found.exit_code == 0, found.exception
        assert "Solo: ROC AUC not defined on val" in found.stdout
        assert "    1 per class: not defined\n" in found.stdout
        assert "note: the val set of Solo holds one class only: no ROC AUC" in found.stdout


def test_a_target_that_is_named_twice_counts_once_and_two_of_one_name_are_refused(place: Path) -> None:
    run = Run(Path("runs/toy"))
    assert [task.name for task in targets(run, None, ["Gamma", "gamma", "shards/Gamma"])] == ["Gamma"]
    write_task(Path("other/Gamma"), seed=7)
    with pytest.raises(UsageError, match=r"two targets are called Gamma; found another in .*shards/Gamma; give one"):
        targets(run, None, ["Gamma", "other/Gamma"])
