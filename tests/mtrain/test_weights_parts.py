"""Weights in several files: all parts are read, each as its index lists it, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mtrain.errors import RunError, UsageError
from mtrain.model.network import shared_network
from mtrain.model.weight_files.weights import read_weights
from mtrain.model.weight_files.weights_file import weights_digest, weights_in, weights_kind

hub = pytest.importorskip("huggingface_hub")
SMALL = "shufflenet_v2_x0_5"
SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return dict(shared_network(SMALL, "random").body.state_dict())


@pytest.fixture(params=[SAFE, PICKLED])
def divided(request: pytest.FixtureRequest, state: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    """A folder that huggingface_hub wrote, with at least three parts."""
    safe = request.param == SAFE
    hub.save_torch_state_dict(state, tmp_path, max_shard_size=100_000, safe_serialization=safe)
    assert len(list(tmp_path.glob("*-of-*"))) >= 3
    return tmp_path


def index_of(folder: Path) -> Path:
    return next(folder.glob("*.index.json"))


def rewritten(folder: Path, change: Callable[[dict[str, str]], object]) -> None:
    content = json.loads(index_of(folder).read_text())
    change(content["weight_map"])
    index_of(folder).write_text(json.dumps(content))


def test_all_parts_of_a_folder_are_read(divided: Path, state: dict[str, torch.Tensor]) -> None:
    for given in (divided, index_of(divided)):
        loaded = shared_network(SMALL, given).body.state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    assert weights_kind(weights_in(divided)) == "index"
    assert read_weights(index_of(divided)).keys() == state.keys()


def test_metadata_of_any_length_may_precede_the_map(divided: Path, state: dict[str, torch.Tensor]) -> None:
    files = json.loads(index_of(divided).read_text())["weight_map"]
    index_of(divided).write_text(json.dumps({"metadata": {"note": "x" * 10_000}, "weight_map": files}))
    assert read_weights(index_of(divided)).keys() == state.keys()


def test_a_missing_part_is_named(divided: Path) -> None:
    part = sorted(divided.glob("*-of-*"))[1]
    part.unlink()
    with pytest.raises(RunError, match=f"a part of these weights is missing: {part.name}; .*again"):
        shared_network(SMALL, divided)


def test_an_unlisted_part_is_named(divided: Path) -> None:
    part = min(divided.glob("*-of-*"))
    other = part.with_name(part.name.replace("00001", "00009"))
    shutil.copy(part, other)
    with pytest.raises(RunError, match=f"not listed in their index: {other.name}"):
        shared_network(SMALL, divided)


def test_a_part_with_other_tensors_than_listed_is_refused(divided: Path) -> None:
    rewritten(divided, lambda of: of.pop(min(of)))
    with pytest.raises(RunError, match=r"it has, unlisted, conv1\.0\.weight"):
        shared_network(SMALL, divided)
    rewritten(divided, lambda of: of.update({"conv1.0.weight": min(of.values()), "conv1.9.weight": min(of.values())}))
    with pytest.raises(RunError, match=r"it lacks conv1\.9\.weight"):
        shared_network(SMALL, divided)


def test_a_part_outside_the_folder_is_refused(divided: Path) -> None:
    rewritten(divided, lambda of: of.update({min(of): "../other.safetensors"}))
    with pytest.raises(RunError, match=r"is missing: \.\./other\.safetensors"):
        shared_network(SMALL, divided)


@pytest.mark.parametrize("of", [{}, [], None, {"a": 1}, {"a": ""}])
def test_an_index_that_lists_nothing_is_refused(tmp_path: Path, of: object) -> None:
    path = tmp_path / f"{SAFE}.index.json"
    path.write_text(json.dumps({"weight_map": of}))
    with pytest.raises(RunError, match="not an index of weights files"):
        shared_network(SMALL, tmp_path)


def test_an_index_that_lists_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"{SAFE}.index.json"
    path.write_text(json.dumps({"weight_map": {"a": path.name}}))
    with pytest.raises(RunError, match="which is an index too"):
        shared_network(SMALL, path)


def test_one_part_alone_is_none(divided: Path) -> None:
    part = min(divided.glob("*-of-*"))
    with pytest.raises(RunError, match=r"it is one part of several; .*give their index"):
        shared_network(SMALL, part)
    index = index_of(divided)
    index.unlink()
    with pytest.raises(RunError, match=r"it is a folder; .*download the index of these parts too"):
        shared_network(SMALL, divided)


def test_the_digest_depends_on_every_part(divided: Path) -> None:
    before = weights_digest(index_of(divided))
    last = sorted(divided.glob("*-of-*.safetensors"))[-1:]
    if last:
        tensors = load_file(last[0])
        name = min(tensors)
        save_file(tensors | {name: tensors[name] + 1}, last[0])
        assert weights_digest(index_of(divided)) != before
    assert len(before) == 64


def test_a_key_of_such_weights_is_looked_for_in_all_parts(divided: Path) -> None:
    with pytest.raises(UsageError, match="nothing in the file is called 'teacher'"):
        shared_network(SMALL, divided, "teacher")
