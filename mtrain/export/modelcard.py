"""Writes the model card, README.md: the data, settings, scores and licences of a network.

It starts with YAML metadata for the Hugging Face Hub, after Mitchell et al., Model cards for model reporting, 2019.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from dpconvert.plural import counted
from dpconvert.shards.sidefiles.licences import OTHER, hub_name, sentence
from mtrain.backbones.card import BackboneCard
from mtrain.config import FitConfig
from mtrain.disk.atomic import write_text
from mtrain.evaluation.comparing.comparisons import BASELINES, Comparison, baseline_of, compare, start_of, titles_of
from mtrain.evaluation.comparing.paired import Interval
from mtrain.model.dense.dense_file import load_dense
from mtrain.model.heads import About, Head
from mtrain.model.network_names import remark
from mtrain.runs.run_folder import SOUP, Run
from mtrain.scoring.effects import effect, effects
from mtrain.setting_roles import OPTIONAL
from mtrain.transfers.results import results_with_answers

NAME = "README.md"
PROTOCOL = "Mormont, Geurts and Marée, IEEE JBHI 25(2), 2021, https://doi.org/10.1109/JBHI.2020.2992878"
SQUARE = (
    "Training and scores took the central square of a patch (if an odd number of pixels is left over, the left or "
    "upper margin is the larger one), resized with antialiasing, as Pillow does."
)
SETTINGS = (
    "iterations",
    "warmup",
    "warmup_lr",
    "lr",
    "tau",
    "momentum",
    "weight_decay",
    "batch",
    "size",
    "adapt_batches",
)


def write(
    out: Path,
    run: Run,
    pool: Sequence[About],
    head: Head | None,
    loading: str,
    tools: Iterable[str],
    scores: Sequence[str],
) -> None:
    """Write the card of an exported network to `out`. tools: lines of a section on other tools. scores: `scores(run)`.

    Raises:
        RunError: the file cannot be written.
    """
    lines = [*_head(pool, run, run.config(), head), *_body(run, pool, head, loading, tools, scores)]
    write_text(out / NAME, "\n".join(lines) + "\n")


def _head(pool: Sequence[About], run: Run, config: FitConfig, head: Head | None) -> Iterator[str]:
    names = {hub_name(of.licence["name"]) for of in pool}
    network = run.network()
    if isinstance(network, BackboneCard) and network.licensed and config.weights != "random":
        names.add(hub_name(network.licence.name))
    yield "---"
    yield f"license: {names.pop() if len(names) == 1 else OTHER}"
    yield f"pipeline_tag: {'image-classification' if head else 'image-feature-extraction'}"
    yield f"tags: [histology, multi-task, pathology, {json.dumps(config.backbone)}]"
    yield "---"
    yield ""


def _body(
    run: Run, pool: Sequence[About], head: Head | None, loading: str, tools: Iterable[str], scores: Sequence[str]
) -> Iterator[str]:
    config, trained = run.config(), run.trained_on()
    yield f"# {config.backbone}, trained on {counted(len(pool), 'task')} of pathology"
    yield ""
    yield f"Run `{run.name}`. Input: RGB images of {config.size} x {config.size} px. {SQUARE}"
    if (note := remark(config.backbone)) is not None:
        yield note
    if head:
        classes = ", ".join(f"{label} {name}" for label, name in enumerate(head.about.classes))
        yield f"It predicts the classes of {head.about.task}: {classes}."
    yield from ("", "```python", loading, "```")
    yield from tools
    yield from _dense(run)
    yield from ("", "## Training", "")
    yield from _training(run, config)
    yield from _pool(pool, trained)
    yield ""
    yield f"Tasks left out: {', '.join(run.left_out()) or 'none'}."
    yield from _choice(run)
    yield from scores
    yield from ("", "## Licences and citations", "")
    yield from _licences(run, pool, config)
    yield from ("", "## Limits", "")
    yield "For research. Not a medical device: nothing here was validated for diagnosis. Other scanners, stains,"
    yield "resolutions and populations than those of the training data may give other answers."


def _training(run: Run, config: FitConfig) -> Iterator[str]:
    """The protocol, the sets, the initial weights and the settings."""
    equal = "" if config.temperature or config.task_weights else "; every task is equally likely in a batch"
    yield f"Multi-task pre-training after {PROTOCOL}{equal}."
    if soup := run.about().get(SOUP):
        yield f"Made from several such training runs: {soup['text']}. The settings and the seed are those of the first."
    yield from _sets(run.trained_on())
    yield f"Initial weights: {config.weights if config.weights in ('imagenet', 'random') else 'a file'}."
    if start := run.started_from().sets:
        seen = "; ".join(f"{', '.join(sets)} of {task}" for task, sets in start.items())
        yield f"The initial weights were trained on: {seen}."
    yield ", ".join(f"{name} {getattr(config, name)}" for name in SETTINGS) + f", seed {config.seed}."
    if other := _beyond_the_paper(config):
        yield f"Beyond the paper: {', '.join(other)}."


def _beyond_the_paper(config: FitConfig) -> list[str]:
    """The settings that the paper does not have, where they differ from their defaults."""
    chosen = {name: getattr(config, name) for name in sorted(OPTIONAL - {"tasks", "drop"})}
    fields = FitConfig.model_fields
    plain = {name: fields[name].get_default(call_default_factory=True) for name in chosen}
    return [f"{name} {value}" for name, value in chosen.items() if value != plain[name]]


def _pool(pool: Sequence[About], trained: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """The table of the tasks that the network was trained on."""
    yield from ("", "| task | classes | training images | um/px | licence |", "|---|--:|--:|--:|---|")
    for of in pool:
        cells = [
            of.task,
            len(of.classes) if of.target != "value" else "a number",
            sum(of.samples.get(split, 0) for split in trained.get(of.task, ("train",))),
            "{:.4g} to {:.4g}".format(*of.mpps) if of.mpps else of.mpp or "not stated",
            _terms(of),
        ]
        yield f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"


def _licences(run: Run, pool: Sequence[About], config: FitConfig) -> Iterator[str]:
    """The licence of the initial weights, and the citations of the data."""
    yield "The weights were trained on the data above; their licences may bind whoever uses or shares the weights."
    yield ""
    network = run.network()
    if isinstance(network, BackboneCard) and network.licensed and config.weights != "random":
        terms = sentence(network.licence.name, network.licence.url, network.licence.note)
        where = " ".join(filter(None, [network.url, network.paper]))
        yield f"- The training began from the weights of {network.title} ({where}), whose licence is {terms}."
    for name, licences in run.started_from().restricted.items():
        yield f"- The initial weights derive from {name}, whose licence is {' and '.join(licences)}."
    yield from (f"- {of.task}: {' '.join(of.citation.split())}" for of in pool if of.citation)


def _sets(trained: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """The sets that were trained on, which therefore cannot be used for scores."""
    for sets in sorted(set(trained.values())):
        tasks = [task for task, of in trained.items() if of == sets]
        of = "every task" if len(tasks) == len(trained) else ", ".join(tasks)
        yield f"Trained on: {', '.join(sets)} of {of}."


def _choice(run: Run) -> Iterator[str]:
    """How the tasks were chosen, and on which sets of the target that they were chosen for."""
    choice = run.choice()
    if choice is None:
        return
    yield f"Tasks that were not chosen: {', '.join(choice.dropped) or 'none'}."
    if choice.target:
        saw = "; ".join(f"{', '.join(sets)} of {task}" for task, sets in choice.saw.items())
        yield f"The tasks were chosen for {choice.target} by an estimate of influence that saw: {saw}."


def _dense(run: Run) -> Iterator[str]:
    """What the decoder of masks and points predicts, if the run has one."""
    if not run.config().dense:
        return
    decoder = load_dense(run.dense)
    yield from ("", "## Masks and points", "")
    modules = ", ".join(f"`{level.module}`" for level in decoder.levels)
    yield f"`{run.dense.name}` holds the decoder that reads the maps of the network's modules {modules}."
    yield "`mtrain predict --dense` applies it to slides, in the run's own folder; the code above does not load it."
    yield ""
    for name, of in decoder.tasks.items():
        kinds = {"masks": of.seg, "points": of.points}
        parts = [f"{kind} of {', '.join(classes)}" for kind, classes in kinds.items() if classes]
        yield f"- {name}: {'; '.join(parts)}"


def scores(run: Run) -> list[str]:
    """The section on the scores of a run's transfers; empty if it has none.

    Raises:
        RunError: a result is damaged, or of another run.
    """
    return list(_scores(run))


def _scores(run: Run) -> Iterator[str]:
    comparisons = compare(results_with_answers(run), start_of(run))
    if not comparisons:
        return
    networks = titles_of(comparisons, "this network")
    heads = ["task", "mode", "set", "metric", "samples (groups)", *networks.values(), "difference", "paper's rule"]
    yield from ("", "## Scores", "", f"| {' | '.join(heads)} |", "|---|---|---|---|" + "--:|" * (len(heads) - 4))
    for c in comparisons:
        sizes = f"{c.samples or 'not stated'}" + (f" ({c.groups})" if c.groups else "")
        gain = "not available" if c.gain is None else effect(c.gain) + effects(c.gain_interval)
        cells = [c.task, c.how, c.scored_on, c.metric, sizes, *(_score(c, w) for w in networks), gain, c.verdict]
        yield f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
    yield ""
    yield "In brackets: 95% intervals by the bootstrap over groups (patients or slides). The difference is this"
    yield f"network minus {BASELINES[baseline_of(comparisons)]}, its interval is of the same groups. The paper's rule:"
    yield "the difference exceeds twice the larger standard deviation over seeds; it is undefined below two seeds, and"
    yield "if all seeds score the same."


def _score(c: Comparison, weights: str) -> str:
    score = c.scores.get(weights)
    return c.missing(weights) if score is None else f"{score:.4f}{_span(c.interval(weights))}"


def _span(interval: Interval | None) -> str:
    return "" if interval is None else f" [{interval[0]:.4f}, {interval[1]:.4f}]"


def _terms(of: About) -> str:
    return sentence(of.licence["name"], of.licence["url"], of.licence["note"])
