"""The state of a run or of a sweep in progress, read from the files that its processes write, as data and as text.

Nothing is locked or changed: log lines that are half written are passed over, and files that are replaced are whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from dpconvert.plural import counted
from dpconvert.runtime.progress import clock
from mtrain.errors import UserError
from mtrain.evaluation.comparing.comparisons import apart
from mtrain.evaluation.selecting import selection
from mtrain.report.cost import seconds_of
from mtrain.report.sweep_state import active, race_state
from mtrain.runs.belonging import OWN
from mtrain.runs.run_folder import Run
from mtrain.scoring.metrics import METRICS
from mtrain.sweep.cell_records import Planned, Result
from mtrain.sweep.store import FAILED, Store
from mtrain.transfers.results import results

ENDED = ("finished", "stopped")
RECENT = 5  # events of the log from which the speed is taken
UNTOLD = ("weights_digest", "head_digest", "mtrain")  # entries of an identity that mean nothing to a reader
SHOWN = 12  # cells with a result that are listed, the newest last


def run_status(run: Run) -> dict[str, Any]:
    """State, progress, time left (s), losses, rates, speed, memory, validation accuracies and scores of a run.

    Raises:
        RunError: not a run folder, or a damaged configuration.
    """
    config, events, (state, saved) = run.config(), run.events(), run.state()
    steps = [event for event in events if event["event"] == "step"]
    last = steps[-1] if steps else {}
    done = max(saved, last.get("iteration", 0))
    speeds = [event["images_per_s"] for event in steps[-RECENT:] if event.get("images_per_s")]
    left = (config.iterations - done) * config.batch / median(speeds) if speeds and state == "running" else None
    validations = [event for event in events if event["event"] == "validation"]
    scores, notes = _scores(run)
    return {
        "run": run.name,
        "state": state,
        "backbone": config.backbone,
        "left_out": run.left_out(),
        "iteration": done,
        "iterations": config.iterations,
        "seconds": seconds_of(config, [event for event in steps if event.get("images_per_s")]),
        "seconds_left": left,
        "loss": last.get("loss"),
        "tasks": last.get("tasks", {}),
        "lr": last.get("lr", {}),
        "images_per_s": median(speeds) if speeds else None,
        "wait": last.get("wait"),
        "memory": last.get("memory", {}),
        "accuracy": validations[-1].get("accuracy", {}) if validations else {},
        "scores": scores,
        "notes": notes,
    }


def _scores(run: Run) -> tuple[list[dict[str, Any]], list[str]]:
    try:
        found = results(run)
    except UserError as error:
        return [], [str(error)]
    cases = [{name: one[name] for name in ("task", "mode", "weights", "set", "metric")} for one in found]
    told = [{name: value for name, value in one["identity"].items() if name not in UNTOLD} for one in found]
    scores = []
    for one, case, own in zip(found, cases, told, strict=True):
        alike = [other for same, other in zip(cases, told, strict=True) if same == case]
        scores.append(case | {"score": one["score"], "differs": apart(own, alike)})
    return scores, []


def run_lines(status: Mapping[str, Any]) -> Iterator[str]:
    """The status of a run as lines of text."""
    left = "" if status["seconds_left"] is None else f", {clock(status['seconds_left'])} left"
    progress = f"{status['iteration']} of {status['iterations']} iterations"
    yield status["run"]
    yield f"{status['state']}, {progress}, {clock(status['seconds'])} spent{left}"
    yield f"{status['backbone']}, left out: {', '.join(status['left_out']) or 'nothing'}"
    if status["loss"] is None:
        yield "nothing was logged yet"
    else:
        yield from filter(None, (_losses(status), _speed(status)))
        yield from _columns("loss by task", {task: f"{loss:.3f}" for task, loss in status["tasks"].items()})
    accuracies = {task: _percent(value) for task, value in status["accuracy"].items() if isinstance(value, float)}
    yield from _columns("accuracy on val, percent", accuracies)
    if status["scores"]:
        yield "scores, percent:"
    for one in status["scores"]:
        weights = "of the run" if one["weights"] == OWN else Path(one["weights"]).name
        mode = f"{one['mode']} ({one['differs']})" if one["differs"] else one["mode"]
        network, metric = f"{mode}, weights {weights}", METRICS.get(one["metric"], one["metric"])
        yield f"  {_score(one):>7}  {one['task']}, {metric} on {one['set']}, {network}"
    yield from (f"note: {note}" for note in status["notes"])


def _losses(status: Mapping[str, Any]) -> str:
    rates = ", ".join(f"{name} {rate:.2g}" for name, rate in status["lr"].items())
    return f"loss {status['loss']:.3f}" + (f", lr {rates}" if rates else "")


def _speed(status: Mapping[str, Any]) -> str:
    """Speed and memory, on a separate line: together with losses and rates they would not fit 80 columns."""
    parts = []
    if status["images_per_s"] is not None:
        parts.append(f"{status['images_per_s']:.1f} images/s")
    if status["wait"] is not None:
        parts.append(f"{status['wait']:.0%} waiting for data")
    parts += [f"{name} memory {value:,.0f} MiB" for name, value in status["memory"].items()]
    return ", ".join(parts)


def _columns(title: str, values: Mapping[str, str]) -> Iterator[str]:
    if values:
        width = max(map(len, values))
        yield f"{title}:"
        yield from (f"  {name.ljust(width)}  {value:>7}" for name, value in values.items())


def _score(one: Mapping[str, Any]) -> str:
    return "not defined" if one["score"] is None else _percent(one["score"])


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def sweep_status(store: Store) -> dict[str, Any]:
    """Cells with their scores, runs in progress, time left (s) and the ranks so far of a sweep.

    Raises:
        RunError: not the folder of a sweep, or a damaged plan.
    """
    planned = store.planned()
    found, notes = _results(store, planned)
    ended = sum(one.state not in FAILED for one in found.values())
    order = sorted(found, key=lambda cell: _written(store, cell))
    by_cell = {one.cell: one for one in planned}
    running = [_training(run) for run in _running(store)]
    goes_on, race = active(store, running), race_state(store)
    all_cells = race is None or race["finished"]  # how many an unfinished race needs is not known
    left = _left([_written(store, cell) for cell in order], found, len(planned) - len(found))
    return {
        "sweep": store.name,
        "cells": len(planned),
        "scored": ended,
        "failed": len(found) - ended,
        "active": goes_on,
        "race": race,
        "seconds_left": left if goes_on and all_cells else None,
        "results": [_cell(by_cell[cell], found[cell]) for cell in order],
        "running": running,
        "ranks": _ranks(store) if found else [],
        "notes": notes,
    }


def _results(store: Store, planned: Sequence[Planned]) -> tuple[dict[str, Result], list[str]]:
    """The results by cell, and notes on those that cannot be read."""
    found: dict[str, Result] = {}
    notes = []
    for one in planned:
        try:
            found |= store.results([one])
        except UserError as error:
            notes.append(str(error))
    return found, notes


def _written(store: Store, cell: str) -> float:
    """When the result of a cell was written, s."""
    try:
        return store.result_path(cell).stat().st_mtime
    except OSError:  # just forgotten, to be made again
        return 0.0


def _left(times: Sequence[float], found: Mapping[str, Result], missing: int) -> float | None:
    """Time that the missing cells take at the pace of those before, whatever number of processes works on them."""
    if not times or not missing:
        return None
    pace = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
    return missing * (pace or median(result.seconds for result in found.values()))


def _cell(planned: Planned, result: Result) -> dict[str, Any]:
    scores = {task: score.score for task, score in result.scores.items()}
    return {
        "combination": str(planned.combination),
        "seed": planned.seed,
        "left_out": list(planned.tasks),
        "state": result.state,
        "scores": scores,
        "failures": dict(result.failures),
        "seconds": result.seconds,
    }


def _running(store: Store) -> Iterator[Run]:
    for path in sorted((store.path / "runs").glob("*/config.json")):
        run = Run(path.parent)
        if run.state()[0] == "running":
            yield run


def _training(run: Run) -> dict[str, Any]:
    status, config = run_status(run), run.config()
    settings = {"lr": config.lr, "tau": config.tau, "seed": config.seed}
    names = ("backbone", "left_out", "iteration", "iterations", "seconds_left", "loss")
    return settings | {name: status[name] for name in names}


def _ranks(store: Store) -> list[dict[str, Any]]:
    """Combinations by mean rank, over the existing results."""
    try:
        chosen = selection.select(store, incomplete=True)
    except UserError:  # a damaged result: the notes have it
        return []
    rows = [(str(chosen.combinations[c]), float(chosen.mean_ranks[c])) for c in chosen.order]
    return [{"combination": name, "mean_rank": rank} for name, rank in rows if rank == rank]


def sweep_lines(status: Mapping[str, Any]) -> Iterator[str]:
    """The status of a sweep as lines of text."""
    left = "" if status["seconds_left"] is None else f", about {clock(status['seconds_left'])} left"
    failed = f", {status['failed']} failed" if status["failed"] else ""
    done = status["scored"] + status["failed"]
    yield f"{status['sweep']}: {done} of {counted(status['cells'], 'cell')} done{failed}{left}"
    yield from _race(status)
    if not status["active"] and not _complete(status):
        race = " --race" if status["race"] else ""
        yield f"nothing is running: `mtrain sweep FILE{race}` resumes it"
    yield from _in_progress(status["running"])
    yield from _newest(status["results"])
    if status["ranks"]:
        yield "mean rank so far, 1 is best:"
        yield from (f"  {one['mean_rank']:6.2f}  {one['combination']}" for one in status["ranks"])
    yield from (f"note: {note}" for note in status["notes"])


def _race(status: Mapping[str, Any]) -> Iterator[str]:
    """The state of the race, whose runs are some of the cells."""
    if race := status["race"]:
        state = "finished" if race["finished"] else "not finished"
        yield f"race: {state}, {race['cost']:.1%} of the iterations of the full grid"
        yield from (f"  {line}" for line in race["lines"])


def _complete(status: Mapping[str, Any]) -> bool:
    """Whether every cell was tried, or the race is over."""
    race = status["race"]
    return bool(status["scored"] + status["failed"] == status["cells"] or (race and race["finished"]))


def _in_progress(running: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if running:
        yield "in training:"
    for one in running:
        left = "" if one["seconds_left"] is None else f", {clock(one['seconds_left'])} left"
        loss = "" if one["loss"] is None else f", loss {one['loss']:.3f}"
        what = f"{one['backbone']}, lr {one['lr']:g}, tau {one['tau']:g}, seed {one['seed']}"
        without = f"without {', '.join(one['left_out'])}" if one["left_out"] else "warm-up or all tasks"
        yield f"  {what}, {without}: {one['iteration']} of {one['iterations']}{loss}{left}"


def _newest(cells: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not cells:
        return
    yield "scores, percent:" if len(cells) <= SHOWN else f"the newest {SHOWN} scores, percent:"
    for one in cells[-SHOWN:]:
        scores = [f"{task} {_score_shown(score)}" for task, score in one["scores"].items()]
        scores += [f"{task} {one['state']}" for task in one["failures"]]
        yield f"  {one['combination']}, seed {one['seed']}: {', '.join(scores)}"


def _score_shown(score: float | None) -> str:
    return "not defined" if score is None else _percent(score)


def ended(status: Mapping[str, Any]) -> bool:
    """Whether nothing is left to be waited for: it is complete, or no process works on it."""
    if "sweep" in status:
        return bool(status["scored"] + status["failed"] == status["cells"]) or not status["active"]
    return status["state"] in ENDED


def lines(status: Mapping[str, Any]) -> Iterable[str]:
    """The status of a run or of a sweep as lines of text."""
    return sweep_lines(status) if "sweep" in status else run_lines(status)
