"""`mtrain sweep --race`: runs or plans the race of a sweep, and reports its status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from dpconvert.plural import counted
from dpconvert.runtime.progress import Reporter
from mtrain.errors import UsageError
from mtrain.race.agenda import RaceAgenda, describe, race_agenda
from mtrain.sweep.command import SweepRequest, SweepResult, forget_failed, open_sweep, reasons, run_cells, script
from mtrain.sweep.left_out import LeftOut
from mtrain.sweep.race_record import NAME, RaceRecord, read_record
from mtrain.sweep.spec import load_sweep
from mtrain.sweep.store import Store


def run_race(request: SweepRequest, report: Reporter) -> SweepResult:
    """Race the combinations of a sweep, or plan it, or write its script for SLURM.

    Raises:
        UserError: a file, an option or shards cannot be used, or a cell failed.
    """
    if request.part is not None:
        remedy = "omit it: processes share a race among themselves"
        raise UsageError("--part divides the full grid", found="--race", remedy=remedy)
    if request.status:
        return status(Store(request.sweeps / load_sweep(request.file).name))
    planned = open_sweep(request, report)
    agenda = race_agenda(planned.sweep, planned.sets, planned.cells)
    if request.sbatch is not None:
        return script(request, request.sbatch, planned.sweep, planned.cells)
    if request.only_plan:
        return _plan(planned.store, agenda, list(planned.sets.values()), report)
    if request.retry_failed:
        forget_failed(planned.store, agenda.cells, report)
    stopped = run_cells(request, planned.store, agenda, report) == "stopped"
    outcomes = agenda.outcomes(planned.store)
    record = agenda.record(outcomes)
    failed = planned.store.failed(agenda.failed())
    found = {
        "sweep": planned.sweep.name,
        "folder": str(planned.store.path),
        "race": record.model_dump(mode="json"),
        "finished": record.finished,
        "failed": failed,
    }
    return SweepResult(lines(planned.store, record), found, stopped, reasons(failed))


def _plan(store: Store, agenda: RaceAgenda, sets: Sequence[LeftOut], report: Reporter) -> SweepResult:
    from mtrain.race.race_cost import plan  # loads torch
    from mtrain.sweep.at_once import outlook
    from mtrain.sweep.engines.local_engine import cards_of
    from mtrain.sweep.sweep_cost import measured

    paces = measured((cell for cell in agenda.cells if cell.whole), sets, report)
    found = plan(agenda, sets, paces)
    lines, here = outlook(
        store, [cell for cell in agenda.cells if cell.whole], cards_of(agenda.cells), found.hours_expected
    )
    return SweepResult([*found.lines(store.name), *lines], found.json() | here)


def status(store: Store) -> SweepResult:
    """Status of the race of a sweep.

    Raises:
        UsageError: no race has been run.
        RunError: the record is damaged.
    """
    record = read_record(store)
    if record is None:
        changed = " since its settings, seeds or shards were changed" if (store.path / NAME).is_file() else ""
        raise UsageError(
            f"no race has been run in this sweep{changed}",
            where=store.path,
            remedy="start one with --race",
        )
    found: dict[str, Any] = {"sweep": store.name, "race": record.model_dump(mode="json"), "finished": record.finished}
    return SweepResult(lines(store, record), found)


def lines(store: Store, record: RaceRecord) -> list[str]:
    """Report how many combinations each rung left, why the others dropped out, and which one wins."""
    state = "finished" if record.finished else "not finished"
    return [
        f"{store.name}: race {state}, {record.cost:.1%} of the iterations of the full grid -> {store.path / NAME}",
        *_rungs(record),
        *_dropped(record),
        *_winners(record),
    ]


def _rungs(record: RaceRecord) -> Iterator[str]:
    for number in range(max(len(contest.rungs) for contest in record.contests)):
        of = [contest.rungs[number] for contest in record.contests if len(contest.rungs) > number]
        stay = {combination for one in of for combination in one.stay}
        name = describe(of[0].share, of[0].seeds)
        waiting = sum(one.undecided > 0 for one in of) + len(record.contests) - len(of)
        still = f"; {counted(waiting, 'contest')} of {len(record.contests)} undecided" if waiting else ""
        yield f"after {name}: {counted(len(stay), 'combination')} can still win{still}"


def _dropped(record: RaceRecord) -> Iterator[str]:
    """One line for each combination that dropped out of every contest: after which rung, and why."""
    out = Counter(combination for contest in record.contests for rung in contest.rungs for combination in rung.dropped)
    contests = len(record.contests) // len({contest.network for contest in record.contests})
    last: dict[str, tuple[int, str]] = {}
    for contest in record.contests:
        for number, rung in enumerate(contest.rungs):
            after, target = describe(rung.share, rung.seeds), contest.target or "all tasks"
            for combination, why in rung.dropped.items():
                if combination not in last or number > last[combination][0]:
                    last[combination] = number, f"out after {after}: {combination}: {why} for {target}"
    for combination, (_, line) in sorted(last.items(), key=lambda item: (item[1][0], item[0])):
        if out[combination] == contests:
            yield f"  {line}"


def _winners(record: RaceRecord) -> Iterator[str]:
    for contest in record.contests:
        if contest.winner is not None:
            network = f", {contest.network}" if contest.network else ""
            yield f"{contest.target or 'over all tasks'}{network}: {contest.winner}"
