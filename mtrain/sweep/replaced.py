"""Tells which scores of a sweep are of shards that have been replaced since: a source that was converted again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from mtrain.data.pool import find_task, open_pool
from mtrain.errors import UserError
from mtrain.sweep.cell_records import Planned, Result
from mtrain.sweep.cells import cell_digest
from mtrain.sweep.store import Store


def replaced(store: Store, planned: Sequence[Planned], results: Mapping[str, Result]) -> Iterator[str]:
    """Yield a note if tasks were scored on other shards than those that the folder of the sweep has now. Without that
    folder, or of tasks that it no longer has, nothing is known.
    """
    shards = store.plan().get("sweep", {}).get("shards")
    stale: dict[str, None] = {}
    with suppress(UserError):
        pool, transfer = open_pool(shards or ""), store.transfer()
        for one in planned:
            with suppress(UserError):
                targets = [find_task(pool, name) for name in one.tasks]
                result = results.get(one.cell)
                if result and cell_digest(Path(result.run).name, targets, transfer) != one.cell:
                    stale |= dict.fromkeys(result.scores)
    if stale:
        again = "run the sweep again to replace them"
        yield (
            f"the scores of {', '.join(sorted(stale))} are not of the shards that are in {shards} now, or of an "
            f"earlier version of mtrain; {again}"
        )
