"""What is exported answers as the run does, where people load it; licences stop it, tokens stay secret."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor

from dpconvert.runtime.progress import Reporter
from mtrain.config import FitConfig
from mtrain.data.pool import open_pool
from mtrain.errors import RunError, UsageError
from mtrain.export import Exported, export, hub
from mtrain.model.heads import Head, load_heads, save_heads
from mtrain.model.network import MultiHead, shared_network
from mtrain.model.weight_files.weights import save_weights
from mtrain.runs.run_folder import Run
from mtrain.train.fit import fit
from tests.mtrain.pools import write_pool

SIZE = 64


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("pool"), ["Alpha", "Beta", "Gamma"])


@pytest.fixture(scope="module")
def run_of(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """Backbone -> a run that ended: what `fit` leaves behind, without the training."""
    runs = tmp_path_factory.mktemp("runs")

    def get(backbone: str) -> Run:
        run = Run(runs / backbone)
        if not run.exists:
            torch.manual_seed(1)
            tasks = open_pool(pool).tasks
            model = MultiHead(shared_network(backbone, "random"), {task.name: task.num_classes for task in tasks})
            run.path.mkdir()
            config = FitConfig(shards=str(pool), backbone=backbone, size=SIZE, iterations=7)
            run.write("config.json", {"config": config.model_dump(mode="json"), "left_out": ["Delta"]})
            save_heads(run.heads, model.heads, tasks)
            save_weights(model.shared.body, run.weights, backbone)
            run.write("state.json", {"state": "finished", "iteration": 7})
        return run

    return get


@pytest.fixture(scope="module")
def draw_images() -> Tensor:
    """uint8 (3, 3, 64, 64)."""
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, SIZE, SIZE), np.uint8))


@torch.inference_mode()
def expected(run: Run, draw_images: Tensor, task: str) -> tuple[Tensor, Tensor]:
    """Features and logits, of the run itself."""
    network = shared_network(run.config().backbone, run.weights).eval()
    features = network(network.normalize(draw_images))
    head = load_heads(run.heads)[task]
    return features, features @ head.weight.T + head.bias


def normalized(run: Run, draw_images: Tensor) -> Tensor:
    return shared_network(run.config().backbone, "random").normalize(draw_images)


@pytest.mark.parametrize("backbone", ["resnet18", pytest.param("densenet121", marks=pytest.mark.stress)])
@torch.inference_mode()
def test_torchvision_loads_the_network_and_its_head(
    backbone: str, run_of: Callable[[str], Run], draw_images: Tensor, tmp_path: Path
) -> None:
    run = run_of(backbone)
    features, logits = expected(run, draw_images, "Gamma")
    export(run, "torchvision", tmp_path / "head", "gamma")
    model = torchvision.models.get_model(backbone, num_classes=3)
    model.load_state_dict(torch.load(tmp_path / "head" / "model.pth", weights_only=True))  # strict
    torch.testing.assert_close(model.eval()(normalized(run, draw_images)), logits)
    export(run, "torchvision", tmp_path / "body")
    model = torchvision.models.get_model(backbone)
    state = torch.load(tmp_path / "body" / "model.pth", weights_only=True)
    left = model.load_state_dict(state, strict=False)
    classifier = "fc" if backbone == "resnet18" else "classifier"
    assert (sorted(left.missing_keys), left.unexpected_keys) == ([f"{classifier}.bias", f"{classifier}.weight"], [])
    setattr(model, classifier, torch.nn.Identity())
    torch.testing.assert_close(model.eval()(normalized(run, draw_images)), features)


@pytest.mark.parametrize("to", ["torchvision", "timm"])
@torch.inference_mode()
def test_the_lines_of_the_card_load_a_network_that_is_ready_and_say_what_it_takes(
    to: str, run_of: Callable[[str], Run], draw_images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both libraries build networks in training mode, where batch normalization depends on the batch."""
    if to == "timm":
        pytest.importorskip("timm")
    run = run_of("resnet18")
    made = export(run, to, tmp_path, "Gamma")
    monkeypatch.chdir(tmp_path)
    loaded: dict[str, Any] = {}
    exec(made.loading, loaded)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = (draw_images / 255 - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(loaded["model"](images), expected(run, draw_images, "Gamma")[1])
    said = "RGB images in 0..1, minus [0.485, 0.456, 0.406], divided by [0.229, 0.224, 0.225]"
    assert said in (tmp_path / "README.md").read_text()


@torch.inference_mode()
def test_the_authors_densenet_keeps_its_features_in_every_form(
    run_of: Callable[[str], Run], draw_images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines of the card load it: torchvision's own forward would apply a ReLU."""
    run = run_of("mtdp_densenet121")
    features, logits = expected(run, draw_images, "Gamma")
    assert features.min() < 0
    for number, (task, answers) in enumerate([(None, features), ("Gamma", logits)]):
        made = export(run, "torchvision", tmp_path / str(number), task)
        monkeypatch.chdir(made.folder)
        loaded: dict[str, Any] = {}
        exec(made.loading, loaded)
        torch.testing.assert_close(loaded["network"].eval()(normalized(run, draw_images)), answers)
        assert "without the ReLU" in (made.folder / "README.md").read_text()
    made = export(run, "safetensors", tmp_path / "own")
    monkeypatch.chdir(made.folder)
    exec(made.loading, loaded)
    torch.testing.assert_close(loaded["network"].eval()(normalized(run, draw_images)), features)
    with pytest.raises(UsageError, match=r"timm's densenet121 applies a ReLU to the features, mtdp_"):
        export(run, "timm", tmp_path / "timm")


@pytest.mark.parametrize(
    "backbone",
    [
        "resnet18",
        *(pytest.param(name, marks=pytest.mark.stress) for name in ("efficientnet_lite0", "timm:resnet10t")),
        "timm:vit_tiny_patch16_224",
        "timm:test_vit",  # at home at 160 px, where timm's class takes 224 unless told otherwise
        "timm:deit_tiny_distilled_patch16_224",
    ],
)
@torch.inference_mode()
def test_timm_loads_the_network_and_its_head(
    backbone: str, run_of: Callable[[str], Run], draw_images: Tensor, tmp_path: Path
) -> None:
    timm = pytest.importorskip("timm")
    run = run_of(backbone)
    features, logits = expected(run, draw_images, "Gamma")
    name = json.loads(_exported(run, "timm", tmp_path / "body").read_text())["architecture"]
    checkpoint = str(tmp_path / "body" / "model.safetensors")
    made = json.loads((tmp_path / "body" / "config.json").read_text())
    model = timm.create_model(name, num_classes=0, checkpoint_path=checkpoint, **made.get("model_args", {})).eval()
    torch.testing.assert_close(model(normalized(run, draw_images)), features)
    told = json.loads(_exported(run, "timm", tmp_path / "head", "Gamma").read_text())
    model = timm.create_model(f"local-dir:{tmp_path / 'head'}", pretrained=True).eval()
    torch.testing.assert_close(model(normalized(run, draw_images)), logits)
    assert model.pretrained_cfg["mean"] == pytest.approx(shared_network(backbone, "random").mean.tolist(), abs=1e-7)
    assert told["label_names"] == ["class-0", "class-1", "class-2"]


def _exported(run: Run, to: str, out: Path, task: str | None = None) -> Path:
    export(run, to, out, task)
    return out / "config.json"


def test_onnxruntime_gives_the_same_numbers(run_of: Callable[[str], Run], draw_images: Tensor, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    run = run_of("resnet18")
    features, logits = expected(run, draw_images, "Gamma")
    export(run, "onnx", tmp_path, "Gamma")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    found = session.run(["features", "logits"], {"images": draw_images.numpy()})
    np.testing.assert_allclose(found[0], features, atol=1e-4)
    np.testing.assert_allclose(found[1], logits, atol=1e-4)
    assert session.run(["features"], {"images": draw_images[:1].numpy()})[0].shape == (1, 512)


@torch.inference_mode()
def test_safetensors_come_back_as_the_shared_network(
    run_of: Callable[[str], Run], draw_images: Tensor, tmp_path: Path
) -> None:
    run = run_of("resnet18")
    made = export(run, "safetensors", tmp_path, "Beta")
    network = shared_network("resnet18", tmp_path / "model.safetensors").eval()
    features = network(network.normalize(draw_images))
    torch.testing.assert_close(features, expected(run, draw_images, "Beta")[0])
    *code, outputs = made.loading.splitlines()
    names = {"features": features}
    exec("\n".join(code).replace('"model.safetensors"', repr(str(tmp_path / "model.safetensors"))), names)
    formula = outputs.removeprefix("# ").partition(": the outputs")[0]
    torch.testing.assert_close(eval(formula, names), expected(run, draw_images, "Beta")[1])
    assert json.loads((tmp_path / "config.json").read_text())["classes"] == ["class-0", "class-1"]


def test_the_model_card_tells_pool_protocol_and_licences(run_of: Callable[[str], Run], tmp_path: Path) -> None:
    run = run_of("resnet18")
    (run.path / "transfer").mkdir(exist_ok=True)
    result = {"identity": {}, "task": "Delta", "mode": "svm", "weights": "run", "metric": "accuracy", "set": "val"}
    run.write("transfer/Delta-svm-run.json", result | {"score": 0.8125, "notes": []})
    made = export(run, "torchvision", tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("---\nlicense: cc0-1.0\n")
    for told in ("| Alpha | 2 | 24 |", "CC0-1.0", "iterations 7", "left out: Delta", "| 0.8125 |", made.loading):
        assert told in text
    assert made.files == ("model.pth", "trained_on.json", "README.md", "SHA256SUMS")


def test_a_licence_that_is_not_open_stops_the_export_unless_allowed(
    run_of: Callable[[str], Run], tmp_path: Path
) -> None:
    run = Run(shutil.copytree(run_of("resnet18").path, tmp_path / "run"))
    heads = load_heads(run.heads)
    closed = {**heads, "Beta": _with_licence(heads["Beta"], "CC BY-NC-ND 4.0")}
    _write(run, closed)
    told = r"the licence of Beta \(CC BY-NC-ND 4.0\) does not allow everyone to share weights derived from it;"
    with pytest.raises(UsageError, match=told) as stopped:
        export(run, "safetensors", run.path / "out")
    assert "--accept-licence" in str(stopped.value)
    assert not (run.path / "out").exists()
    export(run, "safetensors", run.path / "out", accepted=True)
    assert (run.path / "out" / "README.md").read_text().startswith("---\nlicense: other\n")


def _with_licence(head: Head, name: str) -> Head:
    from dataclasses import replace

    return replace(head, about=replace(head.about, licence=head.about.licence | {"name": name, "open": False}))


def _write(run: Run, heads: dict[str, Head]) -> None:
    from dataclasses import asdict

    from mtrain.model.weight_files.tensor_file import write_tensors

    state = {f"{name}.{part}": getattr(head, part) for name, head in heads.items() for part in ("weight", "bias")}
    write_tensors(run.heads, state, {"tasks": {name: asdict(head.about) for name, head in heads.items()}})


def test_what_cannot_be_exported_is_said_in_one_line(run_of: Callable[[str], Run], tmp_path: Path) -> None:
    run = run_of("efficientnet_lite0")
    with pytest.raises(UsageError, match="torchvision has no efficientnet_lite0; use --to timm"):
        export(run, "torchvision", tmp_path)
    with pytest.raises(UsageError, match=r"no head for 'Delta'.*Alpha, Beta, Gamma"):
        export(run, "timm", tmp_path, "Delta")
    run.heads.rename(tmp_path / "kept")
    with pytest.raises(RunError, match="kept no heads"):
        export(run, "timm", tmp_path)
    (tmp_path / "kept").rename(run.heads)
    run.heads.write_bytes(run.heads.read_bytes()[:100])
    with pytest.raises(RunError, match="not the heads of a run"):
        load_heads(run.heads)


def test_what_is_refused_leaves_no_file(run_of: Callable[[str], Run], tmp_path: Path) -> None:
    run = run_of("shufflenet_v2_x0_5")
    result = run.path / "transfer" / "Alpha-svm.json"
    result.parent.mkdir()
    result.write_text('{"task": "Alpha"')
    with pytest.raises(RunError, match=r"Alpha-svm\.json"):
        export(run, "safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    shutil.rmtree(result.parent)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_training_keeps_its_heads(pool: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    config = FitConfig(
        shards=str(pool),
        backbone="resnet18",
        weights="random",
        iterations=2,
        warmup=1,
        batch=4,
        size=32,
        adapt_batches=0,
        workers=0,
        validate_every=0,
    )
    assert fit(config, run, Reporter(quiet=True)) == "finished"
    heads = load_heads(run.heads)
    assert {name: tuple(head.weight.shape) for name, head in heads.items()} == {
        "Alpha": (2, 512),
        "Beta": (2, 512),
        "Gamma": (3, 512),
    }
    assert heads["Gamma"].about.samples == {"train": 24, "val": 8, "test": 8}


# --- the hub, without a network


class Hub:
    """What of HfApi is used; it keeps what it is asked for."""

    asked: list[dict[str, Any]] = []
    error: Exception | None = None

    def create_repo(self, repo_id: str, **options: Any) -> None:
        Hub.asked.append({"repo": repo_id, **options})

    def upload_folder(self, **options: Any) -> Any:
        if Hub.error:
            raise Hub.error
        Hub.asked.append(options | {"files": sorted(path.name for path in Path(options["folder_path"]).iterdir())})
        return type("Commit", (), {"repo_url": f"https://hub.example/{options['repo_id']}"})()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> type[Hub]:
    hugging = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hugging, "HfApi", Hub)
    monkeypatch.setattr(Hub, "asked", [])
    monkeypatch.setattr(Hub, "error", None)
    return Hub


def test_a_push_makes_a_private_repository_of_the_exported_files(
    offline: type[Hub], run_of: Callable[[str], Run], tmp_path: Path
) -> None:
    made: Exported = export(run_of("resnet18"), "safetensors", tmp_path / "out")
    assert hub.push(made.folder, "me/network") == "https://hub.example/me/network"
    created, uploaded = offline.asked
    assert (created["repo"], created["private"], created["exist_ok"]) == ("me/network", True, True)
    assert uploaded["files"] == sorted(made.files)


def test_a_refused_push_is_one_line_without_the_token(offline: type[Hub], tmp_path: Path) -> None:
    offline.error = OSError("401 for Authorization: Bearer hf_abcDEF123 of hf_abcDEF123\nand more")
    with pytest.raises(RunError) as refused:
        hub.push(tmp_path, "me/network")
    assert "abcDEF123" not in str(refused.value)
    assert "401" in str(refused.value)
