"""Networks by table: every entry is built, loads its authors' names exactly, and gives the features that it says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from mtrain.backbones import catalog
from mtrain.backbones.card import BackboneCard, PublishedShape
from mtrain.backbones.model_folder import card_of_folder
from mtrain.cli import group
from mtrain.data.batches.augment import resized, resized_at_once, square
from mtrain.disk.remembered import remembered
from mtrain.errors import RunError, UsageError
from mtrain.model.backbones import body_of_card
from mtrain.model.network import SharedNetwork, shared_network
from mtrain.model.tokens import pooled

timm = pytest.importorskip("timm")

LISTED = {card.name: card for card in catalog.listed()}
BUILT = {name: card for name, card in LISTED.items() if card.timm is not None}
SMALL = {"depth": 2, "embed_dim": 32, "num_heads": 2}
State = dict[str, Tensor]


def tiny(name: str) -> BackboneCard:
    """The same network with two blocks of width 32, for images of 2 x 2 patches where its size can be chosen."""
    card = BUILT[name]
    size = {} if "dinov3" in name else {"img_size": 2 * (card.patch or 0)}
    return card.model_copy(update={"options": card.options | SMALL | size, "size": 2 * (card.patch or 0)})


def random_state(card: BackboneCard, seed: int = 0) -> State:
    """Values by a seed for all tensors of a network, none of them 0: layer scales and biases too."""
    generator = torch.Generator().manual_seed(seed)
    shapes = body_of_card(card).module.state_dict()
    return {name: 0.3 * torch.randn(tensor.shape, generator=generator) + 0.05 for name, tensor in shapes.items()}


def images(card: BackboneCard, count: int = 2) -> Tensor:
    size = card.size or 32
    return torch.rand((count, 3, size, size), generator=torch.Generator().manual_seed(1))


# --- the tables ---


def test_the_networks_that_a_group_asks_for_are_listed() -> None:
    asked = {
        "uni",
        "uni2-h",
        "virchow",
        "virchow2",
        "h-optimus-0",
        "h-optimus-1",
        "h0-mini",
        "prov-gigapath",
        "kaiko-s16",
        "kaiko-s8",
        "kaiko-b16",
        "kaiko-b8",
        "kaiko-l14",
        "lunit-s16",
        "lunit-s8",
        "gpfm",
        "midnight",
        "phikon",
        "phikon-v2",
        "hibou-b",
        "hibou-l",
        "ctranspath",
        "dinov2-s14",
        "dinov3-s16",
    }
    assert asked <= LISTED.keys()
    assert all(card.url and card.licensed and card.size and card.patch for card in LISTED.values())
    assert all(card.size_fault(card.size or 0) is None for card in BUILT.values())
    assert {name for name in LISTED if name not in BUILT} == {"ctranspath", "conch", "conch-v1.5", "musk"}


@pytest.mark.parametrize("name", BUILT)
def test_the_network_of_a_table_has_the_published_shapes(name: str) -> None:
    card = BUILT[name]
    quickly = card.options if "dinov3" in name else card.options | {"weight_init": "skip"}
    with torch.device("meta"):
        network: Any = body_of_card(card.model_copy(update={"options": quickly})).module
    assert card.published is not None
    patch = network.patch_embed
    built = {
        "width": network.num_features,
        "depth": len(network.blocks),
        "heads": network.blocks[0].attn.num_heads,
        "tokens": patch.num_patches,
        "prefix": network.num_prefix_tokens,
    }
    assert built == card.published.model_dump(exclude={"parameters"})
    assert card.published.agrees(sum(parameter.numel() for parameter in network.parameters()))
    assert patch.patch_size == (card.patch, card.patch)


def test_a_published_number_of_parameters_is_compared_to_its_digits() -> None:
    published = PublishedShape(width=1, depth=1, heads=1, tokens=1, prefix=1, parameters="631.2M")
    assert published.agrees(631_229_184)
    assert not published.agrees(632_000_000)


# --- features: timm's own tokens, and the rule by hand ---


@pytest.mark.parametrize("name", BUILT)
def test_the_tiny_twin_loads_exactly_and_gives_the_features_of_the_rule(name: str, tmp_path: Path) -> None:
    card, path = tiny(name), tmp_path / (BUILT[name].files[0])
    state = random_state(card)
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    network = shared_network(card, path).eval()
    loaded = network.body.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)
    own: Any = network.body
    with torch.inference_mode():
        tokens, found = own.forward_features(images(card)), network(images(card))
    prefix = 1 + card.options.get("reg_tokens", 4 if "reg4" in str(card.timm) or "dinov3" in str(card.timm) else 0)
    expected = {
        "cls": tokens[:, 0],
        "cls+mean": torch.cat([tokens[:, 0], tokens[:, prefix:].sum(1) / (tokens.shape[1] - prefix)], dim=1),
    }[card.features]
    torch.testing.assert_close(found, expected)
    assert network.num_features == found.shape[1]
    assert network.mean.tolist() == pytest.approx(list(BUILT[name].mean or ()))


def test_prefix_tokens_are_not_among_the_mean() -> None:
    tokens = torch.arange(12.0).reshape(1, 6, 2)  # a class token, two registers, three patches
    assert pooled(tokens, "mean", 3).tolist() == [[8.0, 9.0]]
    assert pooled(tokens, "cls+mean", 3).tolist() == [[0.0, 1.0, 8.0, 9.0]]
    assert pooled(tokens, "cls", 3).tolist() == [[0.0, 1.0]]


def test_a_network_is_taken_at_other_sizes_that_are_multiples_of_its_patches() -> None:
    card = tiny("uni2-h")
    network = SharedNetwork(card.name, body_of_card(card), card).eval()
    assert network(torch.zeros(1, 3, 42, 42)).shape == (1, 32)
    assert LISTED["uni2-h"].size_fault(256) == "uni2-h takes multiples of its patches' 14 px: give --size 252 or 266"
    assert LISTED["uni2-h"].size_fault(224) is None


# --- names of the authors' files ---


def transformers_dinov2(state: State, blocks: int, pixels: Tensor, patch: int, heads: int, eps: float) -> Tensor:
    """The last hidden state of Dinov2Model, from tensors under the names of its files: written from its paper and
    documentation, without timm.
    """

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)

    kernel = "embeddings.patch_embeddings.projection"
    grid = F.conv2d(pixels, state[f"{kernel}.weight"], state[f"{kernel}.bias"], stride=patch)
    x = grid.flatten(2).transpose(1, 2)
    x = torch.cat([state["embeddings.cls_token"].expand(len(x), 1, -1), x], dim=1)
    x = x + state["embeddings.position_embeddings"]
    if "embeddings.register_tokens" in state:
        registers = state["embeddings.register_tokens"].expand(len(x), -1, -1)
        x = torch.cat([x[:, :1], registers, x[:, 1:]], dim=1)
    for number in range(blocks):
        at = f"encoder.layer.{number}"
        y, inner = norm(f"{at}.norm1", x), f"{at}.attention.attention"
        q, k, v = (
            linear(f"{inner}.{part}", y).unflatten(-1, (heads, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        y = linear(f"{at}.attention.output.dense", (weights @ v).transpose(1, 2).flatten(2))
        x = x + y * state[f"{at}.layer_scale1.lambda1"]
        y = norm(f"{at}.norm2", x)
        if f"{at}.mlp.weights_in.weight" in state:
            gate, values = linear(f"{at}.mlp.weights_in", y).chunk(2, dim=-1)
            y = linear(f"{at}.mlp.weights_out", F.silu(gate) * values)
        else:
            y = linear(f"{at}.mlp.fc2", F.gelu(linear(f"{at}.mlp.fc1", y)))
        x = x + y * state[f"{at}.layer_scale2.lambda1"]
    return norm("layernorm", x)


def dinov2_file(*, patch: int, gated: bool, registers: int, width: int = 32, blocks: int = 2) -> State:
    """Tensors as Dinov2Model saves them, for images of 2 x 2 patches."""
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> Tensor:
        return 0.3 * torch.randn(shape, generator=generator) + 0.02

    def layer(name: str, out: int, into: int) -> State:
        return {f"{name}.weight": draw(out, into), f"{name}.bias": draw(out)}

    state = {
        "embeddings.cls_token": draw(1, 1, width),
        "embeddings.mask_token": draw(1, width),
        "embeddings.position_embeddings": draw(1, 5, width),
        "embeddings.patch_embeddings.projection.weight": draw(width, 3, patch, patch),
        "embeddings.patch_embeddings.projection.bias": draw(width),
        "layernorm.weight": draw(width),
        "layernorm.bias": draw(width),
    }
    state |= {"embeddings.register_tokens": draw(1, registers, width)} if registers else {}
    hidden = (int(4 * width * 2 / 3) + 7) // 8 * 8
    for number in range(blocks):
        at = f"encoder.layer.{number}"
        for part in (
            "attention.attention.query",
            "attention.attention.key",
            "attention.attention.value",
            "attention.output.dense",
        ):
            state |= layer(f"{at}.{part}", width, width)
        for part in ("norm1", "norm2"):
            state |= {f"{at}.{part}.weight": draw(width), f"{at}.{part}.bias": draw(width)}
        state |= {f"{at}.layer_scale{one}.lambda1": draw(width) for one in (1, 2)}
        names = ("weights_in", "weights_out") if gated else ("fc1", "fc2")
        state |= layer(f"{at}.mlp.{names[0]}", 2 * hidden if gated else 4 * width, width)
        state |= layer(f"{at}.mlp.{names[1]}", width, hidden if gated else 4 * width)
    return state


@pytest.mark.parametrize(
    ("name", "gated", "registers"), [("midnight", True, 0), ("phikon-v2", False, 0), ("hibou-b", False, 4)]
)
def test_files_of_transformers_give_the_features_that_their_own_layers_give(
    name: str, gated: bool, registers: int, tmp_path: Path
) -> None:
    card = tiny(name)
    state = dinov2_file(patch=card.patch or 0, gated=gated, registers=registers)
    ratio = {"mlp_ratio": (2 * 88 + 0.5) / 32} if gated else {}
    card = card.model_copy(update={"options": card.options | ratio})
    save_file(state, tmp_path / "model.safetensors")
    network = shared_network(card, tmp_path).eval()
    pixels = images(card)
    tokens = transformers_dinov2(state, 2, pixels, card.patch or 0, heads=2, eps=1e-6)
    means = tokens[:, 1 + registers :].mean(1)
    expected = torch.cat([tokens[:, 0], means], dim=1) if card.features == "cls+mean" else tokens[:, 0]
    with torch.inference_mode():
        torch.testing.assert_close(network(pixels), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["dinov2", "dinov2-gated", "dinov2_with_registers", "vit"])
def test_a_folder_that_transformers_wrote_gives_what_transformers_gives(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 14, "image_size": 28}
    torch.manual_seed(0)
    if kind == "vit":
        model = transformers.ViTModel(transformers.ViTConfig(**sizes, intermediate_size=48))
    elif kind == "dinov2_with_registers":
        model = transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**sizes))
    else:
        model = transformers.Dinov2Model(transformers.Dinov2Config(**sizes, use_swiglu_ffn=kind.endswith("gated")))
    model.save_pretrained(tmp_path / "net")
    network = shared_network(str(tmp_path / "net"), tmp_path / "net").eval()
    pixels = torch.rand((2, 3, 28, 28), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = model.eval()(pixels).last_hidden_state[:, 0]
        torch.testing.assert_close(network(pixels), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("processor", "mean", "std", "size"),
    [
        ({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}, 0.1, 0.4, 28),
        ({"image_mean": 0.5, "image_std": 0.25, "rescale_factor": 0.00392156862745098}, 0.5, 0.25, 28),
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": False}, 0.0, 1.0, 28),
        ({"image_mean": [127.5] * 3, "image_std": [51.0] * 3, "do_rescale": False}, 0.5, 0.2, 28),
        ({"image_mean": [1.0] * 3, "image_std": [1.0] * 3, "rescale_factor": 1 / 127.5}, 0.5, 0.5, 28),
        ({"do_normalize": False, "do_rescale": False}, 0.0, 1 / 255, 28),
        ({"size": {"shortest_edge": 56}, "crop_size": {"height": 42, "width": 42}}, 0.4815, 0.2686, 42),
        ({"size": {"shortest_edge": 56}, "crop_size": 42, "do_center_crop": False}, 0.4815, 0.2686, 56),
        ({"size": 56, "do_resize": False}, 0.4815, 0.2686, 28),
        ({"image_processor_type": "ViTImageProcessor", "size": 56, "crop_size": 42}, 0.5, 0.5, 56),
        ({"feature_extractor_type": "ViTFeatureExtractor", "image_mean": None, "size": 56}, 0.5, 0.5, 56),
    ],
)
def test_images_are_those_that_the_processor_of_transformers_makes(
    tmp_path: Path, processor: dict[str, Any], mean: float, std: float, size: int
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2", "image_size": 28, "patch_size": 14}))
    assert "no preprocessor_config.json: images are normalized as those of ImageNet" in card_of_folder(tmp_path).note
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    card = card_of_folder(tmp_path)
    assert card.mean is not None
    assert card.std is not None
    assert (card.mean[0], card.std[0]) == (pytest.approx(mean, abs=1e-4), pytest.approx(std, abs=1e-4))
    assert (card.size, card.note) == (size, "")


def test_an_unknown_processor_that_does_not_state_the_mean_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "OursImageProcessor"}')
    with pytest.raises(UsageError, match=r"no image_mean, and OursImageProcessor is not known.*state image_mean"):
        card_of_folder(tmp_path)


def test_a_folder_that_timm_wrote_is_taken_as_it_is(tmp_path: Path) -> None:
    options = {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 2, "reg_tokens": 3}
    model = timm.create_model("vit_small_patch16_224", num_classes=0, global_pool="avg", **options)
    told = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 32, 32], "interpolation": "bicubic"}
    content = {"architecture": "vit_small_patch16_224", "model_args": options, "global_pool": "avg", "num_classes": 0}
    (tmp_path / "config.json").write_text(json.dumps(content | {"pretrained_cfg": told}))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    network = shared_network(str(tmp_path), tmp_path).eval()
    pixels = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(network(pixels), model.eval()(pixels))
    assert (network.interpolation, network.mean.tolist()) == ("bicubic", pytest.approx([0.1, 0.2, 0.3]))


def _of_published_options(folder: Path, **more: Any) -> None:
    """A folder whose options state a number of classes too, as those of UNI2-h and Virchow2 do."""
    size = {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 2}
    model = timm.create_model("vit_small_patch16_224", num_classes=0, **size)
    options = size | {"num_classes": 0, "dynamic_img_size": True} | more
    (folder / "config.json").write_text(json.dumps({"architecture": "vit_small_patch16_224", "model_args": options}))
    save_file(model.state_dict(), folder / "model.safetensors")


def test_a_folder_whose_options_state_a_number_of_classes_is_taken(tmp_path: Path) -> None:
    _of_published_options(tmp_path)
    assert shared_network(str(tmp_path), tmp_path).num_features == 32


def test_a_folder_of_a_network_that_gives_tokens_is_refused_with_what_to_give(tmp_path: Path) -> None:
    _of_published_options(tmp_path, global_pool="")
    with pytest.raises(UsageError, match=r"gives all its tokens .* a table that states features"):
        card_of_folder(tmp_path)


def test_blocks_in_chunks_under_a_teacher_with_heads_are_found(tmp_path: Path) -> None:
    card = tiny("gpfm")
    state = random_state(card)
    teacher = {
        "backbone." + (f"blocks.0.{name.removeprefix('blocks.')}" if name.startswith("blocks.") else name): tensor
        for name, tensor in state.items()
    }
    extra = {"backbone.mask_token": torch.zeros(1, 32), "dino_head.mlp.0.weight": torch.zeros(3, 3)}
    torch.save({"teacher": teacher | extra, "iteration": 7}, tmp_path / "GPFM.pth")
    loaded = shared_network(card, tmp_path / "GPFM.pth").body.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_the_class_tokens_position_goes_into_the_class_token_where_there_are_registers(tmp_path: Path) -> None:
    card = tiny("kaiko-l14")
    state = random_state(card)
    positions = torch.cat([torch.full((1, 1, 32), 0.25), state["pos_embed"]], dim=1)
    own = {name: tensor for name, tensor in state.items() if name not in ("reg_token", "pos_embed")}
    meta = own | {"register_tokens": state["reg_token"], "pos_embed": positions, "mask_token": torch.zeros(1, 32)}
    torch.save(meta, tmp_path / "vitl14.pth")
    loaded = shared_network(card, tmp_path / "vitl14.pth").body.state_dict()
    torch.testing.assert_close(loaded["cls_token"], state["cls_token"] + 0.25)
    assert torch.equal(loaded["pos_embed"], state["pos_embed"])
    assert torch.equal(loaded["reg_token"], state["reg_token"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state | {"blocks.1.attn.gate": torch.zeros(3)}, "holds more than this network: blocks.1.attn"),
        (lambda state: {k: v for k, v in state.items() if "ls1" not in k}, r"missing: blocks\.0\.ls1\.gamma"),
        (lambda state: state | {"cls_token": torch.zeros(1, 1, 48)}, "of another shape: cls_token"),
    ],
)
def test_files_of_another_network_are_refused_by_the_first_names(change: Any, message: str, tmp_path: Path) -> None:
    card = tiny("uni")
    save_file(change(random_state(card)), tmp_path / "w.safetensors")
    with pytest.raises(RunError, match=message):
        shared_network(card, tmp_path / "w.safetensors")


def test_a_file_of_another_listed_network_is_reported_by_its_name(tmp_path: Path) -> None:
    lunit, twins = BUILT["lunit-s16"], BUILT["kaiko-s8"]
    with torch.device("meta"):
        shapes = body_of_card(twins).module.state_dict()
    torch.save({name: torch.zeros(1).expand(tensor.shape) for name, tensor in shapes.items()}, tmp_path / "w.pth")
    with pytest.raises(RunError, match=r"not the weights of lunit-s16.*found weights of kaiko-s8"):
        shared_network(lunit, tmp_path / "w.pth")


def test_parts_of_attention_that_are_missing_are_reported(tmp_path: Path) -> None:
    card = tiny("phikon-v2")
    state = dinov2_file(patch=16, gated=False, registers=0)
    del state["encoder.layer.1.attention.attention.key.bias"]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(RunError, match=r"parts of blocks\.1\.attn\.qkv\.bias are missing"):
        shared_network(card, tmp_path / "w.safetensors")


def test_a_published_digest_is_compared(tmp_path: Path) -> None:
    card = tiny("uni").model_copy(update={"sha256": {"w.safetensors": "0" * 64}})
    save_file(random_state(card), tmp_path / "w.safetensors")
    with pytest.raises(RunError, match="not the file that was published"):
        shared_network(card, tmp_path / "w.safetensors")
    right = hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    card = BackboneCard.model_validate(card.model_dump() | {"sha256": {"w.safetensors": right.upper()}})
    shared_network(card, tmp_path / "w.safetensors")


def test_a_digest_of_another_file_is_said_not_to_be_compared(tmp_path: Path) -> None:
    card = tiny("uni").model_copy(update={"sha256": {"pytorch_model.bin": "0" * 64}})
    save_file(random_state(card), tmp_path / "renamed.safetensors")
    remembered()
    shared_network(card, tmp_path / "renamed.safetensors")
    assert remembered() == [
        f"{tmp_path / 'renamed.safetensors'}: its sha256 was not compared; the table of {card.name} states that of "
        "pytorch_model.bin"
    ]


@pytest.mark.parametrize("name", ["blocks.0.attn.qkv.lora_A", "base_model.model.blocks.0.attn.qkv.lora_B.weight"])
def test_updates_of_an_adapter_are_no_weights(tmp_path: Path, name: str) -> None:
    save_file(random_state(tiny("uni")) | {name: torch.zeros(2, 2)}, tmp_path / "adapter.safetensors")
    with pytest.raises(RunError, match=rf"low-rank updates of an adapter: {name}; merge them into the weights"):
        shared_network(tiny("uni"), tmp_path / "adapter.safetensors")


def test_what_cannot_be_a_digest_is_refused() -> None:
    with pytest.raises(ValueError, match="sha256"):
        BackboneCard.model_validate(tiny("uni").model_dump() | {"sha256": {"w.safetensors": "d41d8cd9"}})


# --- what a user gives ---


def test_names_are_found_without_regard_to_case_and_dashes() -> None:
    assert catalog.described("UNI2_H") == LISTED["uni2-h"]
    assert catalog.described("resnet50") is None
    assert catalog.described("timm:vit_tiny_patch16_224") is None


def test_a_listed_network_needs_a_file_and_says_where_from() -> None:
    with pytest.raises(UsageError, match=r"uni2-h starts from its own weights.*mtrain backbones show uni2-h"):
        shared_network("uni2-h")


def test_what_cannot_be_built_is_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match="ctranspath cannot be built: a Swin-T with a convolutional stem"):
        catalog.described("ctranspath")


def test_a_name_that_nobody_knows_is_answered_with_near_ones() -> None:
    with pytest.raises(UsageError, match=r"no network 'h-optimus-2'; did you mean h-optimus-[01] or h-optimus-[01]"):
        shared_network("h-optimus-2", "random")


def test_options_are_for_networks_of_timm() -> None:
    with pytest.raises(UsageError, match="for networks of timm, not for resnet50"):
        catalog.described("resnet50", {"depth": 2})
    with pytest.raises(UsageError, match="uni has a table"):
        catalog.described("uni", {"depth": 2})
    card = catalog.described("timm:vit_tiny_patch16_224", {"depth": 2, "reg_tokens": 3, "mlp_layer": "SwiGLUPacked"})
    assert card is not None
    network = shared_network(card, "random")
    assert len(network.body.blocks) == 2  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"timm does not build vit_tiny_patch16_224 so.*no_such_option"):
        shared_network(
            BackboneCard(name="x", title="x", timm="vit_tiny_patch16_224", options={"no_such_option": 1}), "random"
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('title = "x"\n', "give either timm, or unavailable"),
        ('title = "x"\ntimm = "y"\nfeature = "cls"\n', "feature: is not known here.*features"),
        ('title = "x"\ntimm = "y"\nfeatures = "avg"\n', "features: must be"),
        ("title = \n", "not TOML"),
        ('title = "x"\ntimm = "y"\nnames = ["nobodys"]\n', None),
    ],
)
def test_a_wrong_table_is_reported_in_one_line(text: str, message: str | None, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(text)
    if message is None:
        card = catalog.described(str(tmp_path / "my.toml"))
        assert card is not None
        with pytest.raises(UsageError, match=r"no table of names called 'nobodys'.*transformers-dinov2"):
            catalog.namings(card)
        return
    with pytest.raises(UsageError, match=message):
        catalog.described(str(tmp_path / "my.toml"))


def test_a_table_of_ones_own_may_say_how_its_tensors_are_called(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'title = "Mine"\ntimm = "vit_tiny_patch16_224"\nfeatures = "mean"\nsize = 32\n'
        "[options]\nimg_size = 32\ndepth = 1\nembed_dim = 16\nnum_heads = 2\n"
        "[naming.old]\ntitle = 'old names'\ndrop = ['extra']\n[naming.old.rename]\n'tok' = 'cls_token'\n"
    )
    card = catalog.described(str(tmp_path / "mine.toml"))
    assert card is not None
    assert card.name == "mine"
    state = random_state(card)
    old = {("tok" if name == "cls_token" else name): tensor for name, tensor in state.items()}
    save_file(old | {"extra": torch.zeros(1)}, tmp_path / "w.safetensors")
    network = shared_network(card, tmp_path / "w.safetensors")
    assert torch.equal(network.body.state_dict()["cls_token"], load_file(tmp_path / "w.safetensors")["tok"])


# --- interpolation ---


@pytest.mark.parametrize("side", [50, 20, 90])
def test_bicubic_squares_are_those_of_pillow(side: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC)).astype(int)
    found = square(torch.from_numpy(pixels).permute(2, 0, 1), 32, how="bicubic")
    assert np.abs(found.permute(1, 2, 0).numpy() - expected).max() <= 1
    flat, sides = torch.from_numpy(pixels).reshape(-1), torch.tensor([side])
    assert torch.equal(resized(flat, sides, 32, how="bicubic")[0], found)
    at_once = resized_at_once(flat, sides, 32, side, "bicubic", torch.float16)[0].permute(1, 2, 0)
    assert np.abs(at_once.numpy().astype(int) - expected).max() <= 1


def test_show_says_what_to_download_from_where_under_which_licence_and_where_to_put_it() -> None:
    for card in catalog.listed():
        shown = CliRunner().invoke(group, ["backbones", "show", card.name]).stdout
        lines = dict(line.split("  ", 1) for line in shown.splitlines())
        assert all(name in lines["download"] for name in card.files)
        assert lines["from"].strip().startswith("https://")
        assert ("request access" in lines["from"]) == card.gated
        assert card.licence.name in lines["licence"]
        assert ("--weights" in lines.get("put it", "")) == (card.unavailable is None), card.name


def test_show_describes_a_table_and_a_folder_at_a_path(tmp_path: Path) -> None:
    table = tmp_path / "ours.toml"
    table.write_text(f'title = "Ours"\ntimm = "test_vit"\n[options]\ndepth = 2\n[sha256]\n"w.bin" = "{"0" * 64}"\n')
    shown = CliRunner().invoke(group, ["backbones", "show", str(table)]).stdout
    lines = dict(line.split("  ", 1) for line in shown.splitlines())
    assert lines["built as"].strip() == "test_vit of timm with depth=2"
    assert "0" * 64 in lines["sha256"]
    assert lines["use it"].strip() == f"mtrain fit --backbone {table} --weights FILE"
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_vit", "pretrained_cfg": {}}))
    shown = CliRunner().invoke(group, ["backbones", "show", str(tmp_path)]).stdout
    assert f"mtrain fit --backbone {tmp_path}\n" in shown  # with the weights in the folder
