"""Runs that begin from a network with a table: training, resuming, transfers, predictions, exports, licences."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dpconvert.card import Licence
from dpconvert.runtime.progress import Reporter
from mtrain.backbones import catalog
from mtrain.backbones.card import BackboneCard
from mtrain.config import FitConfig
from mtrain.disk.remembered import remembered
from mtrain.errors import RunError, UsageError
from mtrain.evaluation.comparing.comparisons import compare, start_of
from mtrain.export import export, licence_error, modelcard
from mtrain.export.formats import WRITERS
from mtrain.model.backbones import body_of_card
from mtrain.model.network import shared_network
from mtrain.model.weight_files.weights import seen_by
from mtrain.predict.classifier import Classifier
from mtrain.report.pages.run_page import write_report
from mtrain.runs import untrained
from mtrain.runs.run_folder import Run
from mtrain.runs.seen import Seen, closed
from mtrain.settings import check_names, fit_config
from mtrain.sweep.cells import training_digest
from mtrain.train.fit import fit
from tests.mtrain.pools import write_pool

pytest.importorskip("timm")

TABLE = """title = "Tiny"
timm = "vit_small_patch14_reg4_dinov2"
features = "cls+mean"
mean = [0.7, 0.6, 0.7]
std = [0.2, 0.2, 0.2]
interpolation = "bicubic"
size = 28
patch = 14

[options]
img_size = 28
depth = 2
embed_dim = 16
num_heads = 2

[licence]
name = "CC-BY-NC-ND-4.0"
"""
QUIET = Reporter(quiet=True)


def write_network(folder: Path) -> tuple[Path, Path]:
    """A table and a file of weights."""
    table, weights = folder / "tiny.toml", folder / "tiny.safetensors"
    table.write_text(TABLE)
    torch.manual_seed(3)
    save_file(body_of_card(catalog.load(table)).module.state_dict(), weights)
    return table, weights


def write_world(folder: Path) -> Path:
    """The network, and shards of two tasks. Returns the folder."""
    write_network(folder)
    write_pool(folder / "shards", ["Alpha", "Beta"])
    return folder


def config_of(world: Path, **given: Any) -> FitConfig:
    """A short training of the network of `write_world` on the CPU, with these settings."""
    settings = {
        "shards": world / "shards",
        "backbone": str(world / "tiny.toml"),
        "weights": str(world / "tiny.safetensors"),
        "iterations": 6,
        "warmup": 2,
        "batch": 8,
        "workers": 0,
        "device": "cpu",
        "checkpoint_every": 3,
    }
    return fit_config(None, settings | given)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("network")
    table, weights = write_network(folder)
    write_pool(folder / "shards")
    config = fit_config(
        None,
        {
            "shards": folder / "shards",
            "leave_out": ("Gamma",),
            "backbone": str(table),
            "weights": str(weights),
            "iterations": 4,
            "warmup": 1,
            "batch": 8,
            "workers": 0,
            "device": "cpu",
            "optimizer": "adamw",
        },
    )
    run = Run(folder / "runs" / "tiny")
    assert fit(config, run, QUIET) == "finished"
    table.unlink()  # a run keeps what it needs
    return run


def test_a_run_keeps_the_table_of_its_network(trained: Run) -> None:
    card = trained.network()
    assert not isinstance(card, str)
    assert (card.features, card.interpolation, card.mean, trained.config().size) == (
        "cls+mean",
        "bicubic",
        (0.7, 0.6, 0.7),
        28,
    )
    network = shared_network(card, trained.weights).eval()
    assert (network.num_features, network.interpolation) == (32, "bicubic")
    images = torch.randint(0, 256, (2, 3, 28, 28), dtype=torch.uint8)
    normalized = network.normalize(images)
    torch.testing.assert_close(normalized[:, 0], (images[:, 0] / 255 - 0.7) / 0.2)
    with torch.inference_mode():
        tokens = network.body.forward_features(normalized)  # type: ignore[operator]
        expected = torch.cat([tokens[:, 0], tokens[:, 5:].mean(1)], dim=1)  # four registers
        torch.testing.assert_close(network(normalized), expected)


def test_the_training_moved_what_the_file_held(trained: Run) -> None:
    start = load_file(trained.path.parents[1] / "tiny.safetensors")
    end = load_file(trained.weights)
    assert start.keys() == end.keys()
    moved = {name for name in start if not torch.equal(start[name], end[name])}
    assert {"cls_token", "blocks.1.attn.qkv.weight"} <= moved


def test_a_finished_run_is_recognised_without_its_table(trained: Run) -> None:
    config = fit_config(trained, {})
    check_names(config, resumed=True)
    assert fit(config, trained, QUIET) == "finished"


def test_another_table_of_the_same_path_is_another_run(trained: Run) -> None:
    table = Path(trained.config().backbone)
    try:
        table.write_text(TABLE.replace("cls+mean", "cls"))
        with pytest.raises(RunError, match="other settings: the table of the backbone"):
            fit(trained.config(), trained, QUIET)
    finally:
        table.unlink()


def test_predictions_use_the_tables_interpolation_and_size(trained: Run) -> None:
    classifier = Classifier(trained, "Alpha", "cpu")
    image = torch.randint(0, 256, (40, 40, 3), dtype=torch.uint8).numpy()
    assert classifier.size == 28
    assert classifier.answer([image]).sum() == pytest.approx(1, abs=1e-5)


def test_an_export_that_several_licences_stop_names_them_all() -> None:
    assert licence_error(["Dots", "Bars", "the weights of tiny"]) == (
        "the licences of Dots, Bars and the weights of tiny do not allow everyone to share weights derived from them"
    )


def test_the_licence_of_a_start_binds_what_begins_from_its_exports(trained: Run, tmp_path: Path) -> None:
    exported = export(trained, "timm", tmp_path / "out", accepted=True).folder / "model.safetensors"
    given = {"img_size": 28, "depth": 2, "embed_dim": 16, "num_heads": 2}  # by timm's name, without the table
    settings = {"backbone": "timm:vit_small_patch14_reg4_dinov2", "backbone_options": given, "size": 28}
    config = trained.config().model_copy(update=settings | {"weights": str(exported), "tune": "lora:2"})
    run = Run(tmp_path / "next")
    assert fit(config, run, QUIET) == "finished"
    with pytest.raises(UsageError, match=r"licence of the weights of tiny \(CC-BY-NC-ND-4.0\) does not allow everyone"):
        export(run, "safetensors", tmp_path / "again")
    card = (export(run, "safetensors", tmp_path / "again", accepted=True).folder / modelcard.NAME).read_text()
    assert "The initial weights derive from the weights of tiny, whose licence is CC-BY-NC-ND-4.0." in card
    assert not export(run, "adapter", tmp_path / "adapter").restricted  # the updates alone


def test_closed_licences_of_tasks_are_inherited_with_what_was_seen() -> None:
    licences = {"Alpha": Licence(name="CC0-1.0", open=True), "Beta": Licence(name="CC-BY-NC-4.0")}
    seen = Seen({"Beta": ("train",)}, {}, closed(licences))
    assert seen.restricted == {"Beta": ("CC-BY-NC-4.0",)}
    assert Seen.of((Seen({"Gamma": ("train",)}) | Seen.of(seen.json())).json()).restricted == seen.restricted
    assert "restricted" not in Seen({"Gamma": ("train",)}).json()


def test_the_licence_of_the_start_stops_an_export(trained: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"licence of the weights of tiny \(CC-BY-NC-ND-4.0\) does not allow everyone"):
        export(trained, "safetensors", tmp_path)
    made = export(trained, "safetensors", tmp_path, accepted=True)
    card = (made.folder / modelcard.NAME).read_text()
    assert "The training began from the weights of Tiny" in card
    assert "whose licence is CC-BY-NC-ND-4.0" in card


def test_scores_are_set_against_the_published_weights_that_the_run_began_from(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Path(trained.config().weights)
    monkeypatch.chdir(start.parent)  # the weights may be named by another path than in the training
    score = {"task": "Gamma", "set": "val", "metric": "accuracy", "mode": "knn", "identity": {}, "notes": []}
    for name, value in (("run", 0.875), (start.name, 0.75), ("other.pth", 0.5)):
        trained.write(f"transfer/{Path(name).stem}.json", score | {"weights": name, "score": value})
    page, table = write_report(trained, tmp_path / "page.html")
    assert "| multi-task | published weights | difference | paper's rule | other.pth |" in table
    assert "| 87.50 | 75.00 | +12.50 | undefined |" in table
    assert "The difference is multi-task minus published weights" in table
    assert "Multi-task minus published weights" in page.read_text()
    assert "ImageNet" not in table
    card = (export(trained, "safetensors", tmp_path / "out", accepted=True).folder / modelcard.NAME).read_text()
    assert "| this network | published weights | other.pth | difference |" in card
    shutil.rmtree(trained.path / "transfer")


def test_the_published_weights_are_known_by_any_path(trained: Run, tmp_path: Path) -> None:
    """By a link, through another folder, and by the folder that holds nothing else."""
    start = Path(trained.config().weights)
    (tmp_path / "link.safetensors").symlink_to(start)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(start)
    for weights in (tmp_path / "link.safetensors", start.parent / "." / ".." / start.parent.name / start.name, folder):
        score = {"task": "Gamma", "set": "val", "metric": "accuracy", "mode": "knn", "identity": {}, "notes": []}
        (found,) = compare([score | {"weights": str(weights), "score": 0.75}], start)
        assert found.baseline == "start", weights


def test_a_folder_of_several_weights_files_is_the_file_that_the_table_names(tmp_path: Path) -> None:
    for name in ("dinov2_vitb14_pretrain.pth", "other.bin"):
        (tmp_path / name).touch()
    config = FitConfig(shards="x", backbone="dinov2-b14", weights=str(tmp_path))
    start = start_of(untrained.start_of(tmp_path, config))
    assert start == tmp_path / "dinov2_vitb14_pretrain.pth"
    score = {"task": "Gamma", "set": "val", "metric": "accuracy", "mode": "knn", "identity": {}, "notes": []}
    baselines = {tmp_path: "start", start: "start", tmp_path / "other.bin": "start", "imagenet": "imagenet"}
    for weights, baseline in baselines.items():
        (found,) = compare([score | {"weights": str(weights), "score": 0.75}], start)
        assert found.baseline == baseline, weights


def test_a_folder_with_a_second_file_of_weights_is_said_to_be_read_in_part(tmp_path: Path) -> None:
    table, weights = write_network(tmp_path)
    (folder := tmp_path / "folder").mkdir()
    for name in ("model.safetensors", "pytorch_model.bin", "notes.bin"):
        shutil.copy(weights, folder / name)
    remembered()
    shared_network(str(table), folder)
    told = f"{folder}: model.safetensors was read, not pytorch_model.bin; give a file with --weights to choose"
    assert remembered() == [told]
    shared_network(str(table), folder / "pytorch_model.bin")
    assert remembered() == []


def test_an_exported_file_says_what_it_was_trained_on(trained: Run, tmp_path: Path) -> None:
    export(trained, "safetensors", tmp_path, accepted=True)
    assert seen_by(tmp_path / "model.safetensors").sets == {"Alpha": ("train", "val"), "Beta": ("train", "val")}


def test_an_exported_folder_says_which_network_it_holds(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = export(trained, "safetensors", tmp_path, accepted=True)
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    exec(made.loading, scope)
    found, expected = scope["network"], shared_network(trained.network(), trained.weights).eval()
    images = torch.rand(2, 3, 28, 28)
    with torch.inference_mode():
        torch.testing.assert_close(found(images), expected(images))  # type: ignore[operator]


def test_timm_gives_the_features_by_the_lines_of_the_export(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = export(trained, "timm", tmp_path, accepted=True)
    monkeypatch.chdir(tmp_path)
    images = torch.rand(2, 3, 28, 28)
    scope: dict[str, object] = {"images": images}
    with torch.inference_mode():
        exec(made.loading, scope)
        expected = shared_network(trained.network(), trained.weights).eval()(images)
    torch.testing.assert_close(scope["features"], expected)


@pytest.mark.parametrize(
    ("change", "size"),
    [
        ({}, 28),
        ({"norm_eps": 0.05}, 28),  # which timm's constructor takes no number for
        ({"options": {"img_size": 42}}, 28),
        ({"options": {"img_size": 14}, "features": "cls"}, 56),
        ({"features": "pooled"}, 28),
        ({"files": ("other.bin",), "sha256": {"model.safetensors": "0" * 64}}, 28),  # of the start, not of the export
    ],
)
@pytest.mark.parametrize("to", ["timm", "safetensors"])
def test_an_export_of_any_table_is_a_network_of_the_same_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], size: int, to: str
) -> None:
    card = BackboneCard.model_validate({"name": "tiny", **tomllib.loads(TABLE)})
    options = card.options | change.get("options", {})
    network = shared_network(card.model_copy(update=change | {"options": options}), "random").eval()
    made = WRITERS[to](network, None, tmp_path, size, Seen())
    monkeypatch.chdir(tmp_path)
    images = torch.rand(2, 3, size, size)
    scope: dict[str, Any] = {"images": images}
    with torch.inference_mode():
        exec(f"import torch\n{made.loading}\n{made.encoder}", scope)
        torch.testing.assert_close(scope["encoder"](images), network(images))
        torch.testing.assert_close(shared_network(str(tmp_path), tmp_path).eval()(images), network(images))


def test_a_size_that_is_no_multiple_of_the_patch_is_reported_with_the_nearest(tmp_path: Path) -> None:
    table, weights = write_network(tmp_path)
    config = fit_config(None, {"backbone": str(table), "weights": str(weights), "size": 30})
    with pytest.raises(UsageError, match=r"multiples of its patches' 14 px: give --size 28 or 42"):
        check_names(config)


def test_a_sweep_tells_runs_from_two_tables_apart(tmp_path: Path) -> None:
    table, weights = write_network(tmp_path)
    config = FitConfig(backbone=str(table), weights=str(weights))
    first = training_digest(config, "pool", "weights")
    table.write_text(TABLE.replace("bicubic", "bilinear"))
    assert training_digest(config, "pool", "weights") != first


def test_settings_of_before_keep_their_names() -> None:
    assert "backbone_options" not in FitConfig().determining()
    assert (FitConfig().size, FitConfig().weights) == (224, "imagenet")
    assert FitConfig(backbone="dinov3-s16", weights="random").size == 256
