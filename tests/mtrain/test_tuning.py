"""What moves of a shared network, how fast, and what of it is kept."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models import VisionTransformer
from torchvision.models.swin_transformer import SwinTransformer

from dpconvert.runtime.progress import Reporter
from mtrain.backbones import catalog
from mtrain.config import FitConfig
from mtrain.errors import UsageError
from mtrain.export import export
from mtrain.export.adapter import to_adapter
from mtrain.model import low_rank, tuning
from mtrain.model.backbones import body_of_card
from mtrain.model.network import MultiHead, SharedNetwork, shared_network
from mtrain.runs.run_folder import Run
from mtrain.train.fit import fit
from mtrain.train.optimizer import PhaseOptimizer
from tests.mtrain.test_backbone_runs import config_of, write_network, write_world
from tests.mtrain.test_fit import Notes

pytest.importorskip("timm")

QUIET = Reporter(quiet=True)


@pytest.fixture
def memory_is_not_estimated() -> None:
    """It is, here."""


@pytest.fixture
def network(tmp_path: Path) -> SharedNetwork:
    table, weights = write_network(tmp_path)
    return shared_network(str(table), weights)


def images() -> Tensor:
    return torch.rand((3, 3, 28, 28), generator=torch.Generator().manual_seed(0))


def names(body: torch.nn.Module) -> set[str]:
    return {name for name, parameter in body.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("text", "some", "none"),
    [
        ("norms", {"norm.weight", "blocks.0.norm1.bias"}, {"blocks.0.attn.qkv.bias", "cls_token"}),
        ("bias", {"norm.bias", "blocks.1.attn.qkv.bias", "patch_embed.proj.bias"}, {"norm.weight", "cls_token"}),
        ("last:1", {"norm.weight", "blocks.1.mlp.fc1.weight"}, {"blocks.0.mlp.fc1.weight", "pos_embed", "reg_token"}),
        (
            "lora:2",
            {"blocks.0.attn.qkv.lora_a", "blocks.1.attn.proj.lora_b"},
            {"blocks.0.attn.qkv.weight", "norm.bias"},
        ),
    ],
)
def test_the_named_parameters_move_and_no_others(
    network: SharedNetwork, text: str, some: set[str], none: set[str]
) -> None:
    tuning.prepare(network.body, text, network.name)
    moving = names(network.body)
    assert some <= moving
    assert not none & moving
    network(images()).square().sum().backward()
    for name, parameter in network.body.named_parameters():
        assert (parameter.grad is not None) == (name in moving), name


def test_last_of_more_blocks_than_there_are_is_everything_in_them(network: SharedNetwork) -> None:
    tuning.prepare(network.body, "last:2", network.name)
    assert "blocks.0.attn.qkv.weight" in names(network.body)
    assert "cls_token" not in names(network.body)


def test_nothing_is_kept_of_blocks_that_stand_still(network: SharedNetwork) -> None:
    tuning.prepare(network.body, "last:1", network.name)
    blocks: Any = network.body.blocks
    found = []
    blocks[0].register_forward_hook(lambda _module, _inputs, output: found.append(output.requires_grad))
    blocks[1].register_forward_hook(lambda _module, _inputs, output: found.append(output.requires_grad))
    network(images())
    assert found == [False, True]


def test_low_rank_updates_begin_as_nothing_and_merge_into_the_weights(network: SharedNetwork) -> None:
    plain = copy.deepcopy(network)
    before = network(images())
    tuning.prepare(network.body, "lora:2:6", network.name)
    torch.testing.assert_close(network(images()), before)
    torch.manual_seed(1)
    for name, parameter in network.body.named_parameters():
        if name.endswith(("lora_a", "lora_b")):
            torch.nn.init.normal_(parameter)
    changed = network(images())
    assert not torch.allclose(changed, before, atol=1e-2)
    merged = low_rank.merged_state(network.body)
    plain.body.load_state_dict(merged)  # strict: the names are the plain network's
    torch.testing.assert_close(plain(images()), changed, rtol=1e-4, atol=1e-4)
    adapter = low_rank.adapter_state(network.body)
    assert adapter.keys() == {
        f"blocks.{block}.attn.{layer}.lora_{side}" for block in (0, 1) for layer in ("qkv", "proj") for side in "AB"
    }
    start = dict(network.body.state_dict())["blocks.0.attn.qkv.weight"]
    by_hand = start + adapter["blocks.0.attn.qkv.lora_B"] @ adapter["blocks.0.attn.qkv.lora_A"]
    torch.testing.assert_close(merged["blocks.0.attn.qkv.weight"], by_hand)
    scale = network.body.get_submodule("blocks.0.attn.qkv").scale
    assert scale == 3  # alpha / rank


def test_the_rate_falls_from_block_to_block(network: SharedNetwork) -> None:
    model = MultiHead(network, {"Alpha": 2})
    config = FitConfig(layer_decay=0.5, lr=0.8, warmup=0, iterations=1)
    optimizer = PhaseOptimizer(config, model, 0)
    assert optimizer.shared is not None
    optimizer.set_rates((0.4, 1.0))
    rates = {}
    for name, parameter in network.body.named_parameters():
        (group,) = [g for g in optimizer.shared.param_groups if any(parameter is one for one in g["params"])]
        rates[name] = group["lr"]
    assert (rates["norm.weight"], rates["blocks.1.norm1.bias"], rates["blocks.0.norm1.bias"]) == (0.4, 0.2, 0.1)
    assert rates["cls_token"] == rates["patch_embed.proj.weight"] == rates["pos_embed"] == rates["reg_token"] == 0.05
    assert optimizer.rates == {"shared": 0.4, "heads": 1.0}


def test_checkpointing_changes_no_gradient(network: SharedNetwork) -> None:
    other = copy.deepcopy(network)
    tuning.check_pointing(other.body, other.name)
    for one in (network, other):
        one.train()(images()).square().sum().backward()
    for (name, one), (_, two) in zip(network.named_parameters(), other.named_parameters(), strict=True):
        assert one.grad is not None
        assert two.grad is not None
        torch.testing.assert_close(two.grad, one.grad, msg=name)


@pytest.mark.parametrize("name", ["resnet18", "timm:vgg11"])
def test_networks_without_checkpointing_are_refused(name: str) -> None:
    class Refusing(torch.nn.Module):
        def set_grad_checkpointing(self, enable: bool = True) -> None:
            assert not enable, "gradient checkpointing not supported"

    body = Refusing() if name.startswith("timm:") else torch.nn.Identity()
    with pytest.raises(UsageError, match=f"--checkpointing: {name} does not support it; .*networks of timm do"):
        tuning.check_pointing(body, name)


def test_more_blocks_than_a_network_has_are_refused() -> None:
    network = shared_network("efficientnet_lite0", "random")
    with pytest.raises(UsageError, match="last:8: efficientnet_lite0 has 7 blocks; use --tune last:7 at most, or all"):
        tuning.prepare(network.body, "last:8", network.name)
    tuning.prepare(network.body, "last:7", network.name)
    frozen = [name for name, parameter in network.body.named_parameters() if not parameter.requires_grad]
    assert frozen == ["conv_stem.weight", "bn1.weight", "bn1.bias"]  # the stem is before the blocks
    network.body.requires_grad_(True)
    factor, parameters = tuning.by_layer(network.body, 0.5, network.name)[-1]
    assert (factor, [tuple(one.shape) for one in parameters]) == (0.5**8, [(32, 3, 3, 3), (32,), (32,)])


@pytest.mark.parametrize(
    ("text", "said"),
    [("lora:4", "shufflenet_v2_x0_5 has no projections of attention"), ("last:2", "has no sequence of blocks")],
)
def test_parts_that_a_network_lacks_are_reported(text: str, said: str) -> None:
    network = shared_network("shufflenet_v2_x0_5", "random")
    with pytest.raises(UsageError, match=said):
        tuning.prepare(network.body, text, network.name)
    with pytest.raises(UsageError, match="no sequence of blocks"):
        tuning.by_layer(network.body, 0.5, network.name)
    with pytest.raises(UsageError, match="networks of timm do"):
        tuning.check_pointing(network.body, network.name)


def timm_body(name: str, options: dict[str, object]) -> torch.nn.Module:
    card = catalog.described(f"timm:{name}", options)
    assert card is not None
    return body_of_card(card).module


def torchvision_swin() -> torch.nn.Module:
    return SwinTransformer([4, 4], 8, [1, 1], [1, 2], [4, 4], num_classes=3)


def torchvision_vit() -> torch.nn.Module:
    network = VisionTransformer(64, 32, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=8)
    network.heads = torch.nn.Identity()  # its weights are zeros
    return network


@pytest.mark.parametrize(
    ("body", "projections"),
    [
        (lambda: timm_body("pvt_v2_b0", {"depths": [1, 1, 1, 1]}), {"q", "kv", "proj"}),
        (
            lambda: timm_body("xcit_nano_12_p16_224", {"depth": 1, "cls_attn_layers": 1}),
            {"qkv", "q", "k", "v", "proj"},
        ),
        (
            lambda: timm_body("coat_tiny", {"serial_depths": [1] * 4, "parallel_depth": 1, "embed_dims": [16] * 4}),
            {"qkv", "proj"},
        ),
        (lambda: timm_body("levit_128s", {"depth": [1, 1, 1]}), {"linear"}),
        # the following pass the weights of their layers to a function
        (lambda: timm_body("eva02_tiny_patch14_224", {"depth": 2}), {"qkv", "proj"}),
        (lambda: timm_body("beit_base_patch16_224", {"depth": 1, "embed_dim": 24, "num_heads": 2}), {"qkv", "proj"}),
        (lambda: timm_body("swinv2_tiny_window8_256", {"depths": [1, 1, 1, 1], "embed_dim": 24}), {"qkv", "proj"}),
        (torchvision_swin, {"qkv", "proj"}),
        (torchvision_vit, {"self_attention", "out_proj"}),
    ],
)
def test_all_projections_of_attention_are_updated(body: Callable[[], torch.nn.Module], projections: set[str]) -> None:
    torch.manual_seed(0)
    network = body().eval()
    with torch.no_grad():
        for parameter in network.parameters():  # some networks start with residual branches of zeros
            parameter.add_(torch.randn(parameter.shape), alpha=0.05)
    plain, own = copy.deepcopy(network), network.state_dict()
    pictures = torch.rand((2, 3, *_size_of(network)))
    before = network(pictures).detach()
    tuning.prepare(network, "lora:2:6", "this")
    assert {name.split(".")[-2] for name in names(network)} == projections
    features = network(pictures)
    torch.testing.assert_close(features, before)
    weight = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    (features * weight).sum().backward()
    for name, parameter in network.named_parameters():
        assert not name.endswith("lora_b") or (parameter.grad is not None and parameter.grad.any()), name
        if name.endswith(("lora_a", "lora_b")):
            torch.nn.init.normal_(parameter, std=0.1)
    merged = low_rank.merged_state(network)
    adapter = low_rank.adapter_state(network)
    assert merged.keys() == own.keys()
    for name, layer in low_rank.updates(network):
        by_hand = own[f"{name}.{layer.of}"] + adapter[f"{name}.lora_B"] @ adapter[f"{name}.lora_A"]
        torch.testing.assert_close(merged[f"{name}.{layer.of}"], by_hand)
    plain.load_state_dict(merged)
    with torch.no_grad():
        changed = network(pictures)
        torch.testing.assert_close(plain(pictures), changed, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(changed, before, atol=1e-3)


def _size_of(network: torch.nn.Module) -> tuple[int, int]:
    size = getattr(network, "pretrained_cfg", {}).get("input_size", (3, 64, 64))
    return tuple(size[1:])


def test_updates_that_peft_would_add_twice_are_not_exported(made: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    assert fit(settings(made, tune="lora:2"), run, QUIET) == "finished"
    network = shared_network(str(made / "tiny.toml"), made / "tiny.safetensors")
    network.body = torchvision_vit()
    with pytest.raises(UsageError, match=r"attention of torch, whose output layer PEFT updates twice"):
        to_adapter(run, network, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_attention_by_convolution_is_refused() -> None:
    body = timm_body("visformer_tiny", {"depth": (1, 1, 1)})
    with pytest.raises(UsageError, match="lora:2: visformer_tiny computes its attention with convolutions; use --tune"):
        tuning.prepare(body, "lora:2", "visformer_tiny")


def test_biases_of_attention_are_biases() -> None:
    body = timm_body("eva02_tiny_patch14_224", {"depth": 1})
    tuning.prepare(body, "bias", "eva02")
    assert {"blocks.0.attn.q_bias", "blocks.0.attn.v_bias", "blocks.0.attn.proj.bias"} <= names(body)
    assert not any(name.endswith(("weight", "token", "embed")) for name in names(body))
    body = torch.nn.ModuleDict(
        {"attn": torch.nn.MultiheadAttention(4, 1), "lstm": torch.nn.LSTM(4, 4, bidirectional=True)}
    )
    tuning.prepare(body, "bias", "torch")
    layer = {f"lstm.bias_{of}_l0{side}" for of in ("ih", "hh") for side in ("", "_reverse")}
    assert names(body) == {"attn.in_proj_bias", "attn.out_proj.bias", *layer}


def test_normalization_by_the_root_mean_square_is_normalization() -> None:
    from timm.layers import RmsNorm

    body = torch.nn.Sequential(RmsNorm(4), torch.nn.Linear(4, 4), torch.nn.RMSNorm(4))
    tuning.prepare(body, "norms", "body")
    assert names(body) == {"0.weight", "2.weight"}


@pytest.mark.parametrize(
    "text", ["some", "last", "last:0", "lora:0", "lora:4:", "lora:-1", "lora:4:0", "heads:2", "last:2:3"]
)
def test_a_wrong_specification_is_no_setting(text: str) -> None:
    with pytest.raises(UsageError, match="tune"):
        FitConfig(tune=text)


def test_statistics_of_each_task_are_parameters_that_no_specification_names() -> None:
    with pytest.raises(UsageError, match="per-task does not go with `tune`"):
        FitConfig(tune="bias", batchnorm="per-task")


# --- whole trainings ---


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("tuning"))


def settings(made: Path, **given: Any) -> FitConfig:
    return config_of(made, **({"optimizer": "adamw", "validate_every": 0} | given))


def changed(made: Path, run: Run) -> set[str]:
    start, end = load_file(made / "tiny.safetensors"), load_file(run.weights)
    assert start.keys() == end.keys()
    return {name for name in start if not torch.equal(start[name], end[name])}


@pytest.mark.parametrize("text", ["heads", "bias", "lora:2:4"])
def test_a_training_leaves_the_rest_as_it_was(made: Path, tmp_path: Path, text: str) -> None:
    run = Run(tmp_path / "run")
    assert fit(settings(made, tune=text), run, QUIET) == "finished"
    moved = changed(made, run)
    if text == "heads":
        assert moved == set()
    elif text == "bias":
        assert moved
        assert all(name.endswith(".bias") for name in moved)
    if text.startswith("lora"):
        assert moved == {f"blocks.{block}.attn.{layer}.weight" for block in (0, 1) for layer in ("qkv", "proj")}
        adapter, start, end = load_file(run.adapter), load_file(made / "tiny.safetensors"), load_file(run.weights)
        for layer in moved:
            name = layer.removesuffix(".weight")
            torch.testing.assert_close(end[layer], start[layer] + adapter[f"{name}.lora_B"] @ adapter[f"{name}.lora_A"])
        _check_exported(run, start, end, tmp_path / "adapter")
    else:
        with pytest.raises(UsageError, match=r"low-rank updates; expected a run with --tune lora:R; found .* --tune"):
            export(run, "adapter", tmp_path / "adapter", accepted=True)
    assert run.adapter.is_file() == text.startswith("lora")


def _check_exported(run: Run, start: dict[str, Tensor], end: dict[str, Tensor], out: Path) -> None:
    """Apply the files as PEFT 0.21 does: W + lora_alpha / r * B A, for each of the target modules."""
    made = export(run, "adapter", out, "Alpha", accepted=True)
    config = json.loads((out / "adapter_config.json").read_text())
    tensors = load_file(out / "adapter_model.safetensors")
    assert (config["peft_type"], config["bias"], config["fan_in_fan_out"]) == ("LORA", "none", False)
    assert len(tensors) == 2 * len(config["target_modules"]) == 8
    for layer in config["target_modules"]:
        low, high = (tensors.pop(f"base_model.model.{layer}.{part}.weight") for part in ("lora_A", "lora_B"))
        assert low.shape[0] == high.shape[1] == config["r"]
        weight = start.pop(f"{layer}.weight") + config["lora_alpha"] / config["r"] * high @ low
        torch.testing.assert_close(end.pop(f"{layer}.weight"), weight)
    assert not tensors
    assert all(torch.equal(start[name], end[name]) for name in start)
    assert load_file(out / "head.safetensors")["head.weight"].shape[0] == 2
    assert made.loading in (out / "README.md").read_text()


@pytest.mark.parametrize(
    "given", [{"tune": "lora:2"}, {"tune": "heads"}, {"tune": "last:1", "layer_decay": 0.7, "checkpointing": True}]
)
def test_a_tuning_that_is_resumed_ends_with_the_same_bits(made: Path, tmp_path: Path, given: dict[str, Any]) -> None:
    whole, parts = Run(tmp_path / "whole"), Run(tmp_path / "parts")
    assert fit(settings(made, **given), whole, QUIET) == "finished"
    assert fit(settings(made, **given), parts, QUIET) == "finished"
    for path in sorted(parts.checkpoints.glob("*.safetensors"))[1:]:  # as if it had been killed after iteration 3
        path.unlink()
    assert [path.name for path in parts.checkpoints.glob("*.safetensors")] == ["iteration-00000003.safetensors"]
    for path in (parts.weights, parts.heads):
        path.unlink()
    assert fit(settings(made, **given), parts, QUIET) == "finished"
    assert parts.weights.read_bytes() != b""
    one, two = load_file(whole.weights), load_file(parts.weights)
    assert all(torch.equal(one[name], two[name]) for name in one)
    one, two = load_file(whole.heads), load_file(parts.heads)
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("batchnorm", ["train", "per-task"])
@pytest.mark.parametrize("backbone", ["timm:test_resnet", "timm:test_efficientnet"])  # the latter's blocks end with it
def test_checkpointing_changes_neither_weights_nor_statistics(
    made: Path, tmp_path: Path, backbone: str, batchnorm: str
) -> None:
    given = {"backbone": backbone, "weights": "random", "size": 32, "batchnorm": batchnorm, "iterations": 3}
    runs = Run(tmp_path / "plain"), Run(tmp_path / "checkpointing")
    for run, checkpointing in zip(runs, (False, True), strict=True):
        assert fit(settings(made, **given, warmup=1, checkpointing=checkpointing), run, QUIET) == "finished"
    one, two = (load_file(run.weights) for run in runs)
    assert one.keys() == two.keys()
    assert any(name.endswith("running_mean") for name in one)
    for name, values in one.items():
        torch.testing.assert_close(two[name], values, msg=name)


def test_a_network_without_batch_normalization_is_not_adapted(made: Path, tmp_path: Path) -> None:
    notes = Notes()
    notes.quiet = False  # the memory is estimated only for those who read it
    fit(settings(made), Run(tmp_path / "run"), notes)
    assert any("has no batch normalization to adapt" in text for text in notes.said)
    assert any(text.startswith("memory of an iteration, estimated from shapes: ") for text in notes.said)
