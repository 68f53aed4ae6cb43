"""Results of transfers in; for each task and way to transfer, the networks beside each other and their baseline out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtrain.backbones.card import BackboneCard
from mtrain.evaluation.comparing.paired import Interval, Paired, paired, verdict
from mtrain.evaluation.selecting.ranks import Summary, summary
from mtrain.model.weight_files.weights_file import weights_in
from mtrain.runs.run_folder import Run
from mtrain.scoring.metrics import METRICS

SETS = {"val": "validation", "test": "test", "cv": "cross-validation"}
OWN, IMAGENET, START = "run", "imagenet", "start"  # START: the published weights that the run began from
BASELINES = {IMAGENET: "ImageNet", START: "published weights"}  # what a run is compared with -> its title
UNSEEDED = ("svm", "logistic", "knn")  # ways to transfer in which no seed changes the score of given weights
NOT_RUN, NOT_DEFINED = "not run", "not defined"
FREE = ("weights_digest", "head_digest", "seed", "mtrain")  # entries of an identity that may differ within a row
DIGEST = "task_digest"
Case = tuple[str, str, str, str]  # task, mode, scored set, metric


@dataclass(frozen=True)
class Comparison:
    """Transfers to one task in one mode, scored on one set. `metric` and `scored_on` are words, `key` is the metric's
    name. results: weights ("run", "imagenet", "start", ...) -> one result per seed. baseline: one of `BASELINES`.
    """

    task: str
    mode: str
    metric: str
    scored_on: str
    key: str
    results: Mapping[str, tuple[dict[str, Any], ...]]
    paired: Paired
    baseline: str = IMAGENET
    differs: str = ""  # the settings that other results of this task, mode and set do not have

    @property
    def how(self) -> str:
        """The mode, with the settings that distinguish these results from others in the same mode."""
        return f"{self.mode} ({self.differs})" if self.differs else self.mode

    @property
    def scores(self) -> dict[str, float | None]:
        """Weights -> mean score over the seeds, in 0..1; None if the metric is not defined."""
        found = {weights: self.summary(weights) for weights in self.results}
        return {weights: None if one is None else one.mean for weights, one in found.items()}

    @property
    def gain(self) -> float | None:
        """The run's score minus the baseline's; None unless both exist."""
        return self.gain_of(OWN)

    def gain_of(self, weights: str) -> float | None:
        """The score of these weights minus the baseline's; None unless both exist."""
        own, baseline = self.scores.get(weights), self.scores.get(self.baseline)
        return None if own is None or baseline is None or weights == self.baseline else own - baseline

    @property
    def gain_interval(self) -> Interval | None:
        """The interval of `gain`: both networks were scored on the same groups in each draw."""
        return self.paired.differences.get(OWN)

    @property
    def direction(self) -> str:
        """`up` or `down` if the interval of `gain` lies above or below zero, else nothing."""
        low, high = self.gain_interval or (0.0, 0.0)
        return "up" if low > 0 else "down" if high < 0 else ""

    @property
    def verdict(self) -> str:
        """The paper's rule for the run and its baseline: better, worse, no difference, or undefined below two seeds."""
        return verdict(self.summary(OWN), self.summary(self.baseline))

    @property
    def notes(self) -> tuple[str, ...]:
        found = (note for same in self.results.values() for one in same for note in one["notes"])
        apart = (f"{self.differs}: not comparable with the other rows of this task and mode",) if self.differs else ()
        return tuple(dict.fromkeys([*apart, *found]))

    @property
    def samples(self) -> int | None:
        """Number of samples that were scored; None where no result states it."""
        return self._first("samples")

    @property
    def groups(self) -> int | None:
        """Number of groups (patients, slides) of the scored samples; None where no result states it."""
        return self._first("groups")

    def _first(self, name: str) -> int | None:
        return next((one[name] for same in self.results.values() for one in same if one.get(name)), None)

    def summary(self, weights: str) -> Summary | None:
        """Mean and deviation over seeds, in 0..1; None without a score."""
        scores = [one["score"] for one in self.results.get(weights, ()) if one["score"] is not None]
        if not scores:
            return None
        return summary(scores, seeded=weights == OWN or self.mode not in UNSEEDED)

    def interval(self, weights: str) -> Interval | None:
        """The interval of the mean score, by the bootstrap over groups."""
        found = self.results.get(weights, ())
        if weights not in self.paired.intervals and len(found) == 1:
            return as_interval(found[0].get("intervals", {}).get(self.key))
        return self.paired.intervals.get(weights)

    def missing(self, weights: str) -> str:
        """Why there is no score of these weights."""
        return NOT_DEFINED if self.results.get(weights) else NOT_RUN


def start_of(run: Run) -> Path | None:
    """The file, or the folder, of the published weights that the run began from, which are its baseline: those of a
    network with a table.

    Raises:
        RunError: a file of the run is absent or damaged.
    """
    weights, network = run.config().weights, run.network()
    if not isinstance(network, BackboneCard) or weights in ("random", IMAGENET):
        return None
    return weights_in(Path(weights), network.files)


def compare(found: Iterable[dict[str, Any]], start: Path | None = None) -> list[Comparison]:
    """Group the results of transfers by task, mode, scored set and metric; those of other settings are apart.

    start: the published weights that the run began from, if it did. They are its baseline, unless only those of
    ImageNet were scored.
    """
    found = [one | {"weights": START} if is_start(one["weights"], start) else one for one in found]
    scored = {one["weights"] for one in found}
    baseline = START if START in scored or (start is not None and IMAGENET not in scored) else IMAGENET
    by_case: dict[tuple[Case, str], dict[str, list[dict[str, Any]]]] = {}
    settings: dict[Case, dict[str, dict[str, Any]]] = {}
    for one in _with_unique_names(list(found)):
        case = one["task"], one["mode"], one["set"], one["metric"]
        known = {name: value for name, value in one.get("identity", {}).items() if name not in FREE}
        which = json.dumps(known, sort_keys=True)
        settings.setdefault(case, {})[which] = known
        by_case.setdefault((case, which), {}).setdefault(one["weights"], []).append(one)
    return [
        Comparison(
            task=task,
            mode=mode,
            metric=METRICS.get(metric, metric),
            scored_on=SETS.get(scored_on, scored_on),
            key=metric,
            results={weights: tuple(same) for weights, same in networks.items()},
            paired=paired({weights: _answers(same) for weights, same in networks.items()}, metric, baseline),
            baseline=baseline,
            differs=_differs(which, settings[task, mode, scored_on, metric]),
        )
        for ((task, mode, scored_on, metric), which), networks in sorted(by_case.items())
    ]


def is_start(weights: str, start: Path | None) -> bool:
    """Whether these weights are the file or the folder `start`, whatever the paths that name them."""
    if start is None or weights in (OWN, *BASELINES):
        return False
    given, begun = Path(weights).resolve(), start.resolve()
    return given == begun or weights_in(given, [begun.name]).resolve() == weights_in(begun).resolve()


def _differs(which: str, settings: Mapping[str, Mapping[str, Any]]) -> str:
    """How the settings `which` differ from others of the same case, which cannot be compared with them."""
    others = [other for name, other in settings.items() if name != which]
    return (apart(settings[which], others) or "other settings") if others else ""


def apart(own: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    """The entries of an identity that any of the others has otherwise, as text."""
    differ = [name for name in own if any(other.get(name) != own[name] for other in others)]
    return ", ".join(
        f"shards {str(own[name])[:8]}" if name == DIGEST else f"{name.replace('_', ' ')} {_shown(own[name])}"
        for name in differ
    )


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def as_interval(stated: Sequence[float] | None) -> Interval | None:
    """An interval of a result, which JSON holds as a list."""
    return None if stated is None or None in stated else (stated[0], stated[1])


def baseline_of(comparisons: Iterable[Comparison]) -> str:
    """The baseline of all comparisons of a run."""
    return next((c.baseline for c in comparisons), IMAGENET)


def titles_of(comparisons: Sequence[Comparison], own: str = "multi-task") -> dict[str, str]:
    """Weights -> their title in a table: first the run's, then its baseline's."""
    baseline = baseline_of(comparisons)
    return {OWN: own, baseline: BASELINES[baseline], **other_weights(comparisons)}


def other_weights(comparisons: Sequence[Comparison]) -> dict[str, str]:
    """Weights other than those of the run and its baseline -> their name: only the file's name, if it is unique."""
    others = sorted({weights for c in comparisons for weights in c.results} - {OWN, baseline_of(comparisons)})
    names = [BASELINES.get(weights) or Path(weights).name for weights in others]
    return {w: name if names.count(name) == 1 else w for w, name in zip(others, names, strict=True)}


def _answers(results: Iterable[Mapping[str, Any]]) -> list[Path]:
    """The files of answers of all seeds; none unless each seed has one."""
    paths = [one.get("answers") for one in results if one["score"] is not None]
    return [path for path in paths if path is not None] if all(paths) else []


def _with_unique_names(results: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The results, with different names for different networks: the same file may have held several."""
    digests: dict[str, set[str]] = {}
    for result in results:
        digests.setdefault(result["weights"], set()).add(_digest(result))
    for result in results:
        several = result["weights"] not in (OWN, *BASELINES, "random") and len(digests[result["weights"]]) > 1
        yield result | {"weights": f"{result['weights']} ({_digest(result)})"} if several else result


def _digest(result: Mapping[str, Any]) -> str:
    return str(result.get("identity", {}).get("weights_digest", ""))[:8]
