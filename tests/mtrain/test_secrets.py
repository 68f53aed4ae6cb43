"""Keys, tokens, passwords in addresses: what trainings, answers and mistakes leave behind holds none of them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mtrain import doctor
from mtrain.data import shard_cache, storage
from tests.mtrain.pools import write_pool
from tests.mtrain.storages import BUCKET, KEYS, s3_server, upload
from tests.mtrain.test_cli import TINY, Command, mtrain

__all__ = ["mtrain"]
PLANTED = "hf_5ecret"
NAMES = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_SESSION_TOKEN",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "CYTOMINE_PUBLIC_KEY",
    "CYTOMINE_PRIVATE_KEY",
    "GOOGLE_API_KEY",
    "WANDB_API_KEY",
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory, a bucket that holds a pool, and recognisable keys of every kind in the environment."""
    local = write_pool(tmp_path / "shards", ("Alpha", "Beta"))
    with s3_server() as port:
        upload(port, local, "pool")
        planted = {name: f"{PLANTED}{number}" for number, name in enumerate(NAMES)}
        for name, value in (KEYS | planted | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(shard_cache.CACHE, str(tmp_path / "cache"))
        monkeypatch.setattr(storage, "FIRST_WAIT", 0.01)
        storage.file_system.cache_clear()
        monkeypatch.chdir(tmp_path)
        yield tmp_path
    storage.file_system.cache_clear()


def test_keys_and_tokens_reach_no_file_and_no_line(
    place: Path, mtrain: Command, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a training on S3, of all that is made of it, and of mistakes with addresses and with the hub."""
    monkeypatch.setattr(pytest.importorskip("huggingface_hub").HfApi, "create_repo", _echoing)
    monkeypatch.setattr(doctor, "_ranks", lambda: "which takes seconds")
    Image.new("RGB", (40, 40)).save("a.png")
    caplog.set_level(logging.INFO)
    answers = {
        "fit": mtrain("fit", "--shards", f"s3://{BUCKET}/pool", "--leave-out", "Beta", "--run", "toy", *TINY),
        "transfer": mtrain("transfer", "--mode", "svm"),
        "features": mtrain("features", "--task", "Beta", "--out", "features"),
        "report": mtrain("report"),
        "runs": mtrain("runs"),
        "predict": mtrain("predict", "--task", "Alpha", "--patch", 32, "a.png"),
        "doctor": mtrain("doctor"),
        "export": mtrain("export", "--out", "export", "--push", "me/network"),
        "user": mtrain("fit", "--shards", f"s3://5ecret:5ecret@{BUCKET}/pool", *TINY),
        "query": mtrain("fit", "--shards", "https://127.0.0.1:1/pool?X-Amz-Signature=5ecret", *TINY),
        "gone": mtrain("fit", "--shards", f"s3://{BUCKET}/5ecret-is-no-key", *TINY),
    }
    failed = {name: answer.err for name, answer in answers.items() if answer.status}
    assert failed.keys() == {"export", "user", "query", "gone"}, failed
    assert "5ecret-is-no-key" in answers.pop("gone").err  # so lines of errors are looked at
    said = "".join(answer.out + answer.err for answer in answers.values()) + caplog.text
    assert "5ecret" not in said
    files = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert {"config.json", "log.jsonl", "report.html", "images.csv", "model.safetensors"} <= {p.name for p in files}
    assert [path for path, data in files.items() if b"5ecret" in data] == []


def _echoing(hub: Any, *_: object, **__: object) -> None:
    """A hub that answers with what it was sent."""
    token = os.environ["HF_TOKEN"]
    raise OSError(f"401 of https://me:{token}@hub.example/?token={token} to Bearer {token}")
