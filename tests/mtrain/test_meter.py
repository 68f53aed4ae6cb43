"""What is told of the iterations since the last look."""

from __future__ import annotations

import pytest
import torch

from mtrain.errors import RunError
from mtrain.train.reporting import meter
from mtrain.train.reporting.meter import Meter


class Clock:
    """Time that passes when it is told to."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def added(*iterations: tuple[list[float], list[int]]) -> Meter:
    found = Meter(["A", "B", "C"])
    for losses, counts in iterations:
        found.add(torch.tensor(losses), torch.tensor(counts))
    return found


def test_losses_are_means_over_samples_and_tasks_without_any_are_left_out() -> None:
    found = added(([6.0, 1.0, 0.0], [2, 1, 0]), ([0.0, 3.0, 0.0], [0, 3, 0]))
    event = found.take(7)
    assert (event["event"], event["iteration"]) == ("step", 7)
    assert event["loss"] == pytest.approx(10 / 6)
    assert event["tasks"] == {"A": 3.0, "B": 1.0}
    found.add(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1, 0, 0]))
    assert found.take(8)["tasks"] == {"A": 1.0}


def test_gathering_does_not_change_what_was_given() -> None:
    losses = torch.tensor([1.0])
    found = Meter(["A"])
    found.add(losses, torch.tensor([1]))
    found.add(torch.tensor([1.0]), torch.tensor([1]))
    assert losses.tolist() == [1.0]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stays_so_and_is_named_with_its_iterations(wrong: float) -> None:
    found = added(([1.0, wrong, 0.0], [1, 1, 0]), ([1.0, 1.0, 0.0], [1, 1, 0]))
    with pytest.raises(RunError, match=r"the loss of B is not finite in iterations 9 to 10"):
        found.check(10)


def test_speed_counts_waiting_but_not_what_was_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    """4 s: 1 s of waiting, 3 s of work, and 5 s of validation that do not count; 8 images."""
    clock = Clock()
    monkeypatch.setattr(meter, "time", clock)
    found = Meter(["A"])

    def items():  # type: ignore[no-untyped-def]
        clock.now += 1
        yield "batch"

    for _ in found.timed(items(), clock.monotonic):
        clock.now += 3
        found.add(torch.tensor([1.0]), torch.tensor([8]))
    with found.paused():
        clock.now += 5
    event = found.take(1)
    assert (event["images_per_s"], event["wait"]) == (2.0, 0.25)


def test_a_resumed_window_goes_on_and_its_speed_is_that_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(meter, "time", clock)
    before = added(([6.0, 1.0, 0.0], [2, 1, 0]))
    kept = before.state(before.check(1))
    resumed, whole = Meter(["A", "B", "C"]), added(([6.0, 1.0, 0.0], [2, 1, 0]))
    resumed.restore(kept, torch.device("cpu"))
    clock.now = 2.0
    for one in (resumed, whole):
        one.add(torch.tensor([0.0, 3.0, 5.0]), torch.tensor([0, 3, 1]))
    found, expected = resumed.take(2), whole.take(2)
    assert (found["images_per_s"], expected["images_per_s"]) == (2.0, 3.5)
    assert {**found, "images_per_s": 0} == {**expected, "images_per_s": 0}
    resumed.add(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1, 0, 0]))
    assert resumed.take(3)["loss"] == 1.0
    other = Meter(["A", "B"])
    other.restore(kept | {"model.x": torch.ones(1)}, torch.device("cpu"))  # of another number of tasks
    assert other.losses is None
