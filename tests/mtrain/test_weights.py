"""Weights files: every tensor is used, or belongs to a part that is dropped by name; anything else is refused."""

from __future__ import annotations

import argparse
import io
import itertools
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save, save_file
from torch import Tensor, nn

from mtrain.errors import RunError, UsageError
from mtrain.model.backbones import body_of
from mtrain.model.network import shared_network
from mtrain.model.relatives import relatives
from mtrain.model.weight_files.weights import open_weights, read_weights
from mtrain.model.weight_files.weights_file import weights_kind
from mtrain.model.weight_files.weights_fit import fit_names

SMALL = "shufflenet_v2_x0_5"
State = dict[str, Tensor]


def shapes(name: str) -> State:
    """Names and shapes of a whole network, its classifier included, without its values."""
    with torch.device("meta"):
        if name.startswith("timm:"):
            timm = pytest.importorskip("timm")
            return dict(timm.create_model(name.removeprefix("timm:")).state_dict())
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        return dict(torchvision.models.get_model(name, weights=None, **options).state_dict())


def wanted(name: str) -> State:
    with torch.device("meta"):
        return dict(body_of(name, pretrained=False).module.state_dict())


def fitted(found: State, name: str, key: str | None = None) -> State:
    return fit_names(found, wanted(name), Path("w.pth"), name, key, relatives(name))


def small(fill: float = 0.0) -> State:
    state = shared_network(SMALL, "random").body.state_dict()
    return {name: torch.full_like(value, fill) for name, value in state.items()}


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


# --- larger networks are refused, by the first names and by the network that fits ---


@pytest.mark.parametrize(
    ("given", "asked", "first", "right"),
    [
        ("resnet34", "resnet18", r"layer1\.2\.conv1\.weight", "resnet34"),
        ("resnet101", "resnet50", r"layer3\.6\.conv1\.weight", "resnet101"),
        ("convnext_small", "convnext_tiny", r"features\.5\.9\.layer_scale", "convnext_small"),
        pytest.param(
            "timm:convnext_small",
            "timm:convnext_tiny",
            r"stages\.2\.blocks\.9\.gamma",
            "timm:convnext_small",
            marks=pytest.mark.stress,
        ),
        ("timm:seresnet50", "resnet50", r"layer1\.0\.se\.fc1\.weight", "timm:seresnet50"),
        pytest.param("vgg13_bn", "vgg11_bn", "", "vgg13_bn", marks=pytest.mark.stress),
        pytest.param("densenet169", "densenet121", "", "densenet169", marks=pytest.mark.stress),
        ("timm:resnet50d", "timm:resnet50", "", "timm:resnet50d"),
        ("resnext50_32x4d", "resnet50", "", "resnext50_32x4d"),
    ],
)
def test_weights_of_a_larger_network_are_refused(given: str, asked: str, first: str, right: str) -> None:
    with pytest.raises(RunError, match=rf"not the weights of {asked}: .*{first}") as caught:
        fitted(shapes(given), asked)
    assert str(caught.value).endswith(f"found weights of {right}; give --backbone {right}")


def test_a_network_that_computes_its_widths_is_named_too() -> None:
    """RegNet cannot be built on the meta device."""
    state = torchvision.models.get_model("regnet_y_400mf").state_dict()
    shapes_of = next(shapes for name, shapes in relatives("regnet_x_400mf") if name == "regnet_y_400mf")
    assert all(state[name].shape == tensor.shape for name, tensor in shapes_of.items())
    assert {"fc.weight", "fc.bias"} == state.keys() - shapes_of.keys()


def test_a_transformer_with_layer_scale_is_none_without() -> None:
    pytest.importorskip("timm")
    plain, asked = shapes("timm:vit_tiny_patch16_224"), wanted("timm:vit_tiny_patch16_224")
    scaled = plain | {f"blocks.{number}.ls1.gamma": torch.ones(192) for number in range(12)}
    with pytest.raises(RunError, match=r"holds more than this network: blocks\.0\.ls1\.gamma.* and 9 more; check"):
        fit_names(scaled, asked, Path("w.pth"), "vit")
    assert fit_names(plain, asked, Path("w.pth"), "vit")


def test_an_efficientnet_lite1_is_no_lite0() -> None:
    pytest.importorskip("timm")
    with pytest.raises(
        RunError, match=r"more than this network: blocks\.1\.2.*found weights of timm:tf_efficientnet_lite1"
    ):
        fitted(shapes("timm:tf_efficientnet_lite1"), "efficientnet_lite0")


@pytest.mark.parametrize(
    "name", ["resnet18", "vgg11", "mobilenet_v3_small", "vit_b_16", "googlenet", "inception_v3", "swin_t", "maxvit_t"]
)
def test_networks_of_torchvision_fit_with_their_classifiers(name: str) -> None:
    assert fitted(shapes(name), name).keys() == wanted(name).keys()


def test_a_file_of_a_larger_network_is_refused_by_a_command(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet34(weights=None).state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        RunError, match=r"w\.pth: not the weights of resnet18: .* and 77 more; found weights of resnet34"
    ):
        shared_network("resnet18", tmp_path / "w.pth")


# --- what is dropped, and where ---

SIMCLR = under("backbone.", small()) | {"projection_head.layers.0.weight": torch.zeros(2)}
LIGHTNING = {
    "state_dict": under("model.", small()) | {"criterion.weight": torch.ones(2), "train_acc.tp": torch.ones(2)}
}
TRAINED = {
    "epoch": 3,
    "arch": SMALL,
    "state_dict": under("module.", small()),
    "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]},
    "scheduler": {"last": torch.zeros(1)},
    "args": argparse.Namespace(lr=0.1),
}
AVERAGED = under("module.", small()) | {"n_averaged": torch.tensor(7)}
COMPILED = under("_orig_mod.", small())
TUNED = under("shared.body.", small()) | {"head.weight": torch.zeros(2), "head.bias": torch.zeros(2)}
MAE = {"model": small() | {"mask_token": torch.zeros(2), "decoder_blocks.0.norm1.weight": torch.zeros(2)}}
COUNTED = small() | {"conv1.0.total_ops": torch.zeros(1), "fc.weight": torch.zeros(2), "fc.bias": torch.zeros(2)}


@pytest.mark.parametrize("content", [SIMCLR, LIGHTNING, TRAINED, AVERAGED, COMPILED, TUNED, MAE, COUNTED])
def test_heads_and_the_state_of_a_training_are_dropped_by_name(tmp_path: Path, content: dict[str, object]) -> None:
    torch.save(content, tmp_path / "w.pth")
    shared_network(SMALL, tmp_path / "w.pth")


def test_a_head_inside_the_network_is_not_dropped() -> None:
    """A squeeze-and-excitation block has an `fc` of its own."""
    blocks = {"stage2.0.se.fc.0.weight": torch.zeros(2), "fc.weight": torch.zeros(2)}
    with pytest.raises(RunError, match=r"more than this network: stage2\.0\.se\.fc\.0\.weight; check --backbone"):
        fit_names(small() | blocks, small(), Path("w.pth"), SMALL)


# --- several networks in a file ---


def dino(student: float = 0.0, teacher: float = 1.0) -> dict[str, State]:
    head = {"head.mlp.0.weight": torch.zeros(2), "head.last_layer.weight_g": torch.zeros(2)}
    return {
        "student": under("module.backbone.", small(student)) | under("module.", head),
        "teacher": under("backbone.", small(teacher)) | head,
    }


def moco() -> dict[str, object]:
    encoders = under("module.encoder_q.", small(0.0)) | under("module.encoder_k.", small(1.0))
    return {
        "arch": SMALL,
        "state_dict": encoders | {"module.queue": torch.zeros(2), "module.queue_ptr": torch.zeros(1)},
    }


@pytest.mark.parametrize(
    ("content", "choices"),
    [
        (dino(), ["student.module.backbone", "teacher.backbone"]),
        (moco(), ["state_dict.module.encoder_k", "state_dict.module.encoder_q"]),
        ({"model": small(), "model_ema": small(1.0)}, ["model", "model_ema"]),
        (small() | under("ema.", small(1.0)), [".", "ema"]),
    ],
)
def test_one_of_several_networks_must_be_chosen(tmp_path: Path, content: dict[str, object], choices: list[str]) -> None:
    path = tmp_path / "w.pth"
    torch.save(content, path)
    listed = ", ".join(choices).replace(".", r"\.")
    with pytest.raises(RunError, match=rf"2 networks are in this file: {listed}; choose one with --weights-key, like"):
        shared_network(SMALL, path)
    for number, choice in enumerate(choices):
        bias = shared_network(SMALL, path, choice).body.state_dict()["conv1.1.bias"]
        assert bias.unique().tolist() == [abs(number - ("encoder_k" in choices[0]))]


def callbacks(kept: object) -> dict[str, object]:
    """A checkpoint of Lightning whose callback averages the weights."""
    return {
        "state_dict": under("model.", small()),
        "callbacks": {"EMA{'decay': 0.999}": {"weights": kept}, "EarlyStopping": {"wait_count": 0}},
    }


@pytest.mark.parametrize(
    ("content", "choice"),
    [
        (callbacks(small(1.0)), "callbacks.EMA{'decay': 0.999}.weights"),
        (callbacks(under("model.", small(1.0))), "callbacks.EMA{'decay': 0.999}.weights.model"),
        ({"state_dict": small(), "optimizer": {"ema": small(1.0)}}, "optimizer.ema"),
        ({"state_dict": small(), "averaged": small(1.0)}, "averaged"),
        ({"state_dict": small(1.0), "current_model_state": small()}, "state_dict"),
        ({"state_dict": small(), "callbacks": {"WeightAveraging": {"average": small(1.0)}}}, "callbacks"),
    ],
)
def test_averages_of_the_weights_are_a_choice(tmp_path: Path, content: dict[str, object], choice: str) -> None:
    path = tmp_path / "w.ckpt"
    torch.save(content, path)
    with pytest.raises(RunError, match=r"2 networks are in this file: .*; choose one with --weights-key"):
        shared_network(SMALL, path)
    assert shared_network(SMALL, path, choice).body.state_dict()["conv1.1.bias"].unique().tolist() == [1]


@pytest.mark.parametrize(
    "content",
    [
        callbacks(list(small(1.0).values())),
        callbacks({name: value for name, value in small(1.0).items() if "running" not in name}),
        {"state_dict": small(), "optimizer_states": [{"ema": tuple(small(1.0).values()), "state": {}}]},
        {"model": small(), "optimizer_ema": {"shadow_params": list(small(1.0).values())}},
    ],
)
def test_averages_without_names_are_not_dropped_in_silence(tmp_path: Path, content: dict[str, object]) -> None:
    path = tmp_path / "w.ckpt"
    torch.save(content, path)
    top = "model" if "model" in content else "state_dict"
    with pytest.raises(RunError, match=rf"averaged weights are in this file too.*use the others with .* {top}"):
        shared_network(SMALL, path)
    assert shared_network(SMALL, path, top).body.state_dict()["conv1.1.bias"].unique().tolist() == [0]


def test_a_key_may_be_the_beginning_of_the_way(tmp_path: Path) -> None:
    torch.save(dino(teacher=0.5), tmp_path / "w.pth")
    network = shared_network(SMALL, tmp_path / "w.pth", "teacher")
    assert network.body.state_dict()["conv1.1.bias"].unique().tolist() == [0.5]
    with pytest.raises(
        UsageError, match=r"--weights-key: nothing in the file is called 'tutor'; expected student, teacher"
    ):
        shared_network(SMALL, tmp_path / "w.pth", "tutor")
    with pytest.raises(UsageError, match=r"called 'backbone'; expected student\.module\.backbone, teacher\.backbone"):
        shared_network(SMALL, tmp_path / "w.pth", "backbone")
    with pytest.raises(UsageError, match=r"--weights-key names a part of a file; found --weights random"):
        shared_network(SMALL, "random", "teacher")


@pytest.mark.parametrize("top", ["teacher", "student", "model_ema", "backbone", "model", "state_dict", "anything"])
def test_the_only_network_in_a_file_is_opened(tmp_path: Path, top: str) -> None:
    torch.save({top: small(1.0), "epoch": 3}, tmp_path / "w.pth")
    assert shared_network(SMALL, tmp_path / "w.pth").body.state_dict()["conv1.1.bias"].min() == 1


def test_two_names_of_the_same_values_are_one_choice(tmp_path: Path) -> None:
    torch.save(dino(student=0.5, teacher=0.5), tmp_path / "w.pth")
    shared_network(SMALL, tmp_path / "w.pth")


def test_another_network_beside_it_is_named(tmp_path: Path) -> None:
    save_file(under("visual.", small()) | {"text.ln.weight": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(RunError, match=r"text\.ln\.weight; if the rest is another network, .* --weights-key visual$"):
        shared_network(SMALL, tmp_path / "w.safetensors")
    shared_network(SMALL, tmp_path / "w.safetensors", "visual")


# --- what the file says that it is of ---


def test_networks_of_like_tensors_are_distinguished_by_what_the_file_says(tmp_path: Path) -> None:
    """timm has EfficientNet-Lite0 with two paddings."""
    timm = pytest.importorskip("timm")
    state = timm.create_model("efficientnet_lite0").state_dict()
    torch.save({"arch": "efficientnet_lite0", "state_dict": state}, tmp_path / "w.pth")
    with pytest.raises(
        RunError, match=r"not the weights of efficientnet_lite0; found weights of timm:efficientnet_lite0"
    ):
        shared_network("efficientnet_lite0", tmp_path / "w.pth")
    shared_network("timm:efficientnet_lite0", tmp_path / "w.pth")
    (tmp_path / "hub").mkdir()
    save_file(state, tmp_path / "hub" / "model.safetensors")
    (tmp_path / "hub" / "config.json").write_text(json.dumps({"architecture": "efficientnet_lite0"}))
    with pytest.raises(RunError, match=r"give --backbone timm:efficientnet_lite0"):
        shared_network("efficientnet_lite0", tmp_path / "hub" / "model.safetensors")


def test_a_config_beside_a_file_of_another_name_is_about_something_else(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "ours.pth")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet50"}))
    assert open_weights(tmp_path / "ours.pth").architecture is None
    torch.save(small(), tmp_path / "pytorch_model.bin")
    assert open_weights(tmp_path / "pytorch_model.bin").architecture == "resnet50"


@pytest.mark.parametrize("kind", ["?", "b", "H", "i", "q", "e", "f", "d"])
@pytest.mark.parametrize("legacy", [False, True])
def test_numbers_of_numpy_are_no_code(tmp_path: Path, kind: str, legacy: bool) -> None:
    """As the best score that a training loop saves beside the weights."""
    content = {"state_dict": small(1.0), "best": np.dtype(kind).type(1)}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    network = shared_network(SMALL, tmp_path / "w.pth")
    assert next(network.parameters()).detach().min() == 1


# --- files that are none ---


def packed(write: Callable[[io.BytesIO], None]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def a_zip(buffer: io.BytesIO) -> None:
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("weights/resnet.pth", b"x")


def a_tar(buffer: io.BytesIO) -> None:
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("resnet.pth"))


def saved(**options: bool) -> bytes:
    return packed(lambda buffer: torch.save(small(), buffer, **options))


TORCH, LEGACY, SAFE = saved(), saved(_use_new_zipfile_serialization=False), save(small())
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is empty"),
        (LFS, "it is a Git LFS pointer: .*run `git lfs pull` there"),
        (b"\n<!DOCTYPE html>\n<html><body>404</body></html>", "it is an HTML page, which the server sent"),
        (b'<html lang="en">', "it is an HTML page"),
        (b'{"error": "gated"}', "it is a JSON file"),
        (b"Access denied\n", "it is a text file that begins 'Access denied'"),
        (packed(a_zip), r"it is a zip archive of other files \(weights/resnet.pth\).*unpack it"),
        (packed(a_tar), "it is a tar archive.*unpack it"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\3", "it is a gzip archive"),
        (b"\x89HDF\r\n\x1a\n\0\0\0", "it is an HDF5 file, as Keras writes"),
        (TORCH[:-300], "it is a zip archive that is cut short"),
        (LEGACY[:-300], "it is cut short or damaged"),
        (LEGACY[:30], "it is cut short or damaged"),
        (SAFE[:-300], r"it is a safetensors file that is cut short: \d+ of \d+ bytes; .*download or copy it again"),
        (SAFE[:300], "it is a safetensors file that is cut short"),
        (b"\0\1\2\3\4\5\6\7\0\1\2\3", "its first bytes match no known format"),
    ],
    ids=map(str, itertools.count()),  # the data of some differs between processes
)
def test_what_is_no_weights_file_is_called_what_it_is(tmp_path: Path, data: bytes, said: str, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(data)
    with pytest.raises(RunError, match=f"not a weights file: {said}") as caught:
        shared_network(SMALL, path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "kind"), [(TORCH, "zip"), (LEGACY, "pickle"), (SAFE, "safetensors")], ids=["zip", "pickle", "safetensors"]
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.bin", "w"])
def test_a_weights_file_is_read_whatever_its_name(tmp_path: Path, data: bytes, kind: str, name: str) -> None:
    (tmp_path / name).write_bytes(data)
    assert weights_kind(tmp_path / name) == kind
    assert read_weights(tmp_path / name).keys() == small().keys()


def test_a_folder_of_several_files_is_none_and_they_are_named(tmp_path: Path) -> None:
    for name in ("one.safetensors", "two.safetensors"):
        (tmp_path / name).write_bytes(SAFE)
    with pytest.raises(RunError, match=r"it is a folder; .*give a file in it: one\.safetensors, two\.safetensors"):
        shared_network(SMALL, tmp_path)


def test_a_torchscript_program_is_called_one(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        for name in ("w/data.pkl", "w/constants.pkl", "w/code/__torch__.py"):
            archive.writestr(name, b"x")
    with pytest.raises(RunError, match=r"it is a TorchScript program; .*save the state_dict\(\) of the model"):
        shared_network(SMALL, tmp_path / "w.pt")


def test_dictionaries_that_hold_themselves_are_gone_through_once(tmp_path: Path) -> None:
    content: dict[str, object] = {"model": small()}
    content["again"] = content
    torch.save(content, tmp_path / "w.pth")
    shared_network(SMALL, tmp_path / "w.pth")
    assert isinstance(shared_network(SMALL, tmp_path / "w.pth").body, nn.Module)


@pytest.mark.parametrize(
    ("stored", "convert"),
    [
        ("int8", lambda tensor: (tensor * 10).to(torch.int8)),
        ("float8_e4m3fn", lambda tensor: tensor.to(torch.float8_e4m3fn)),
        ("complex64", lambda tensor: tensor.to(torch.complex64)),
        ("sparse_coo", lambda tensor: tensor.to_sparse()),
        (r"a shape without values \(meta device\)", lambda tensor: tensor.to("meta")),
    ],
)
def test_weights_that_are_not_stored_as_real_numbers_are_refused(
    stored: str, convert: Callable[[Tensor], Tensor]
) -> None:
    wanted = {"conv.weight": torch.rand(2, 3), "norm.num_batches_tracked": torch.tensor(1)}
    found = wanted | {"conv.weight": convert(wanted["conv.weight"])}
    with pytest.raises(RunError, match=f"conv.weight is stored as {stored}"):
        fit_names(found, wanted, Path("a.pth"), "toy")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precisions_are_read(kind: torch.dtype) -> None:
    wanted = {"conv.weight": torch.rand(2, 3)}
    fitted = fit_names({"conv.weight": wanted["conv.weight"].to(kind)}, wanted, Path("a.pth"), "toy")
    assert torch.allclose(fitted["conv.weight"].float(), wanted["conv.weight"], atol=0.01)


def test_a_bit_that_flipped_in_a_file_of_torch_is_reported(tmp_path: Path) -> None:
    """torch does not compare what it loads with the archive's checksums; other numbers would come out."""
    path = tmp_path / "w.pth"
    state = {"a.weight": torch.arange(1000.0), "b.weight": torch.ones(3)}
    torch.save(state, path)
    data = bytearray(path.read_bytes())
    at = data.index(state["a.weight"].numpy().tobytes()) + 2003
    data[at] ^= 1
    path.write_bytes(data)
    assert not torch.equal(torch.load(path, weights_only=True)["a.weight"], state["a.weight"])
    with pytest.raises(
        RunError, match=r"w\.pth: damaged: w/data/0 in it does not match its checksum; download or copy"
    ):
        read_weights(path)


def test_a_file_of_torch_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a.weight": torch.arange(1000.0)}, tmp_path / "w.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_weights(tmp_path / "w.pth")["a.weight"], torch.arange(1000.0))
