"""Shards on gs://, from a server on loopback: the same as on s3:// (test_remote.py), through another library."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from mtrain.data import shard_cache, storage
from mtrain.data.pool import open_pool
from mtrain.data.streamed_samples import StreamedTask, samples
from mtrain.data.task import open_task
from mtrain.errors import RunError, UsageError
from mtrain.runs.run_folder import Run
from mtrain.train.fit import fit
from tests.mtrain.pools import write_pool
from tests.mtrain.storages import BUCKET, Faults, gcs_server, proxy, upload_to_gcs
from tests.mtrain.test_fit import Notes, config

PREFIX = f"gs://{BUCKET}/pool"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("gcs") / "shards", ("Alpha", "Beta"), sizes={"train": 24, "val": 5})


@pytest.fixture(scope="module")
def server(local: Path) -> Iterator[int]:
    with gcs_server() as port:
        upload_to_gcs(port, local, "pool")
        yield port


@pytest.fixture
def faults(server: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """The server behind the proxy, as the environment tells the library; nobody looks for Google's machines."""
    plan = Faults()
    monkeypatch.setenv(shard_cache.CACHE, str(tmp_path / "cache"))
    monkeypatch.setenv(shard_cache.CACHE_SIZE, "1GB")
    monkeypatch.setattr(storage, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    storage.file_system.cache_clear()
    with proxy(server, plan) as port:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        yield plan


def first_shard() -> shard_cache.Copy:
    copy = open_task(f"{PREFIX}/Alpha").files()[0]
    assert isinstance(copy, shard_cache.Copy)
    return copy


def test_a_training_on_gs_ends_with_the_weights_of_the_same_on_disk(
    local: Path, faults: Faults, tmp_path: Path
) -> None:
    """Loader processes that were forked from one that has read there; answers that fail, break off and dawdle."""
    faults.planned, faults.slow_seconds = ["fail", "cut", "slow", "cut", "fail"], 0.05
    there, here = (Run(tmp_path / name / "toy") for name in ("there", "here"))
    settings: dict[str, Any] = {"leave_out": ("Beta",), "iterations": 4, "warmup": 1}
    assert fit(config(Path(PREFIX), **settings, workers=1), there, Notes()) == "finished"
    assert faults.planned == []
    assert fit(config(local, **settings), here, Notes()) == "finished"
    assert there.weights.read_bytes() == here.weights.read_bytes()


def test_a_storage_that_keeps_failing_is_retried_by_us_only_and_reported_in_one_line(
    faults: Faults, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(storage, "TRIES", 3)
    copy = first_shard()
    faults.planned = ["fail"] * 20
    with pytest.raises(RunError, match=rf"^{PREFIX}/Alpha/train-000000.tar: cannot be read: .*; check the net") as told:
        copy.ensure()
    assert "\n" not in str(told.value)
    assert len(faults.asked) in (3, 4)  # a request on a connection that was just closed is repeated once
    assert [record for record in caplog.records if record.name.startswith("gcsfs")] == []  # no tracebacks of its own


def test_an_answer_that_never_comes_is_reported_in_one_line(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "TRIES", 2)
    monkeypatch.setattr(storage, "READ_SECONDS", 0.3)
    copy = first_shard()
    faults.planned, faults.slow_seconds = ["slow"] * 3, 1.0
    with pytest.raises(RunError, match=r"train-000000.tar: no response in time; check the network"):
        copy.ensure()


def test_access_that_is_refused_is_reported_at_once_with_where_credentials_come_from(faults: Faults) -> None:
    copy = first_shard()
    for refusal in ("deny", "unknown"):
        faults.planned = [refusal] * 6
        with pytest.raises(RunError, match=r"train-000000.tar: access denied; run `gcloud auth application-default"):
            copy.ensure()
        assert len(faults.planned) >= 3  # no patience with that


def test_what_is_not_there_is_named(faults: Faults) -> None:
    copy = first_shard()
    gone = shard_cache.Copy(copy.url.replace("train-000000", "train-999999"), copy.path, copy.size, copy.sha256)
    with pytest.raises(RunError, match=rf"^{PREFIX}/Alpha/train-999999.tar: no such file; check the address"):
        gone.ensure()
    with pytest.raises(UsageError, match=rf"^gs://{BUCKET}/nothing: no task at this address"):
        open_pool(f"gs://{BUCKET}/nothing/")
    with pytest.raises(UsageError, match=r"^gs://no-such-bucket/x: no task at this address"):
        open_pool("gs://no-such-bucket/x")


def test_a_stream_goes_on_where_an_answer_broke_off(faults: Faults) -> None:
    task = open_task(f"{PREFIX}/Alpha")
    faults.planned = ["cut", "fail", "cut"]
    stream = samples(StreamedTask.of(task), 1, "seed")
    assert len({sample.key for sample in islice(stream, 24)}) == 24
    stream.close()  # type: ignore[attr-defined]
    assert faults.planned == []
