"""Devices that cannot be used end in one line that says why."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from mtrain import cli
from mtrain.errors import RunError, UsageError
from mtrain.model.devices import device_failure, device_failures_reported, find_device

TOO_OLD = "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). Please update"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "out of memory on the device"),
        (RuntimeError("NCCL error ... Duplicate GPU detected : rank 0 and rank 1 both on 1b000"), "the same GPU"),
        (RuntimeError("CUDA error: no kernel image is available for execution on the device"), "no code for this GPU"),
        (RuntimeError(TOO_OLD), "driver is too old"),
        (RuntimeError("CUDA error: CUDA-capable devices are busy or unavailable"), "another process has this GPU"),
        (RuntimeError("unable to allocate shared memory(shm) for file </torch_9>: No space left"), "/dev/shm has too"),
    ],
)
def test_device_failures_are_reported_in_one_line(error: RuntimeError, line: str) -> None:
    with pytest.raises(RunError, match=line) as reported, device_failures_reported():
        raise error
    assert reported.value.remedy
    assert "\n" not in str(reported.value)


def test_our_own_errors_still_raise() -> None:
    mistake = RuntimeError("shape mismatch")
    assert device_failure(mistake) is None
    with pytest.raises(RuntimeError, match="shape mismatch"), device_failures_reported():
        raise mistake


def test_a_driver_that_is_too_old_is_not_taken_for_a_machine_without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def available() -> bool:
        warnings.warn(TOO_OLD, stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", available)
    for name in ("auto", "cuda"):
        with pytest.raises(UsageError, match=r"driver is too old.*--device cpu"):
            find_device(name)
    assert find_device("cpu") == torch.device("cpu")


def test_other_warnings_of_torch_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def available() -> bool:
        warnings.warn("CUDA initialization: CUDA unknown error - this may be due to the environment", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", available)
    with pytest.warns(UserWarning, match="CUDA unknown error"):
        assert find_device("auto") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "mps", "cpu:1", "cuda:", "meta", ""])
def test_what_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="use auto, cpu, cuda or cuda:N"):
        find_device(name)


def test_hidden_gpus_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UsageError, match=r"CUDA_VISIBLE_DEVICES is empty"):
        find_device("cuda")


def test_a_missing_device_is_reported_with_those_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert find_device("cuda:1").index == 1
    with pytest.raises(UsageError, match=r"no device 'cuda:2' here.*cuda:0 to cuda:1"):
        find_device("cuda:2")


def test_a_command_that_runs_out_of_memory_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_args: object, **_kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(cli.group, "main", full)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "mtrain: error: out of memory on the device" in capsys.readouterr().err
