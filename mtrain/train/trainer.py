"""A training in progress: the model, its optimizer and the number of iterations done.

`Training.step` is one iteration of the paper. It depends only on the state before it, the seed and its number: not on
the loader processes, and on the number of ranks and micro-batches only through rounding and through the batches that
batch normalization sees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from mtrain.config import FitConfig
from mtrain.data import sampling
from mtrain.data.batches import colour
from mtrain.data.batches.batch import Batch
from mtrain.data.batches.sending import without_waiting
from mtrain.data.pool import Pool
from mtrain.data.rows import Rows
from mtrain.data.task import Task
from mtrain.model.batchnorm import batchnorm_adapt, batchnorm_per_task
from mtrain.model.loss import head_scales, task_losses
from mtrain.model.network import MultiHead
from mtrain.model.recording import Recording
from mtrain.model.tuning import moved
from mtrain.model.weight_files.weights import StateDict
from mtrain.train import checkpoint, validation
from mtrain.train.averaging import Average
from mtrain.train.backward import conflicts, task_gradients
from mtrain.train.backward.exactness import exact_gradients
from mtrain.train.backward.gradients import GradientSums
from mtrain.train.compilation import Passes, compiled, plain
from mtrain.train.dense_part import DensePart, decoded_images
from mtrain.train.distributed import SINGLE_PROCESS, Ranks
from mtrain.train.graph import RecordedIteration
from mtrain.train.inputs import Inputs, Known
from mtrain.train.optimizer import PhaseOptimizer, learning_rates
from mtrain.train.supply import BatchSupply


class Training(BatchSupply):
    """Trains `model`, on its device, on the training sets of `pool`. One rank of `ranks`."""

    def __init__(
        self,
        config: FitConfig,
        pool: Pool,
        model: MultiHead,
        device: torch.device,
        done: int = 0,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> None:
        super().__init__(config, pool, device, ranks, how=model.shared.interpolation, dense=model.dense is not None)
        self.model, self.ranks = model, ranks
        self.iteration, self.counts = done, [0] * len(pool.tasks)
        self.tasks = [task.name for task in pool.tasks]
        self.dense = None if model.dense is None else DensePart(config, model.dense, self.tasks)
        classes = torch.tensor([float(max(task.num_classes, 2)) for task in pool.tasks], device=device)
        self.scale = 1 / classes.log() if config.scales_losses else None
        if self.scale is not None and model.heads.mixed:  # the losses of other targets are scaled in any case
            self.scale = torch.where(model.heads.of_class.to(device), self.scale, 1.0)
        self.plain = plain(model)
        self.passes = self.plain  # or their compiled form, where the shared network is trained
        self.combines = config.gradients != "mean" and len(pool.tasks) > 1  # gradients of tasks, not by adding them
        self.sums = None if ranks.alone or self.combines else GradientSums(moved(model.shared))
        self.optimizer = PhaseOptimizer(config, model, done)
        self.average: Average | None = None
        self.measured: StateDict = {}  # of the checkpoint: what was measured since the last event of the log
        self.recording: Callable[[], Recording] | None = None  # of iterations; None to run each as it is
        self.recorded: RecordedIteration | None = None
        self.note: Callable[[str], None] = lambda _text: None

    @property
    def warming(self) -> bool:
        """Whether the next iteration belongs to the warm-up, which trains only the heads."""
        return self.iteration < self.config.warmup

    @property
    def still(self) -> bool:
        """Whether the shared network stands still in the next iteration: in the warm-up, or always."""
        return self.warming or self.config.tune == "heads"

    @property
    def rates(self) -> dict[str, float]:
        """Learning rates of the parts being trained: shared network and heads, or only the heads."""
        return self.optimizer.rates

    def step(self, *parts: Batch) -> Tensor:
        """Run one iteration on the micro-batches that make up this rank's share of the batch.

        Returns the loss of each task, summed over its samples on this rank: (tasks,), on the device. Afterwards
        `counts` holds the number of samples of each task in the whole batch.
        """
        if self.iteration == self.config.warmup:  # the momentum of the heads from the warm-up is discarded
            self.optimizer, self.recorded = PhaseOptimizer(self.config, self.model, self.iteration), None
        self.optimizer.set_rates(learning_rates(self.config, self.iteration))
        losses = self._iterate(parts) if self.recording is None else self._replay(parts[0], self.recording)
        self.iteration += 1
        self._average()
        return losses

    def _iterate(self, parts: Sequence[Batch]) -> Tensor:
        """Gradients of all micro-batches, summed over the ranks, and an optimizer step."""
        drawn = self.ranks.all_reduced(torch.stack([part.counts for part in parts]).sum(0).tolist())
        self.optimizer.zero_grad()
        if self.combines and not self.still:
            losses, rows = self._rows(parts, drawn())
            self._combine(rows)
        else:
            losses = torch.stack([self._backward(part, number) for number, part in enumerate(parts)]).sum(0)
        self.counts = drawn()
        self._sum_over_ranks()
        self.optimizer.step(without_waiting(head_scales(self.counts), self.device))
        return losses

    def _replay(self, batch: Batch, recording: Callable[[], Recording]) -> Tensor:
        """The same for a single batch on a single rank, as a recorded iteration."""
        if self.recorded is None:
            size, tasks = self.config.size, len(self.tasks)
            images, objects = len(self.slots[0]), self.objects or 0
            inputs = Inputs(images, size, tasks, self.device, width=self.width, part=self.dense, objects=objects)
            self.recorded = RecordedIteration(
                self.model,
                self.optimizer,
                self._recorded_losses,
                inputs,
                batch=self.config.batch,
                recording=recording(),
                note=self.note,
            )
        self.counts = batch.counts.tolist()
        seed = sampling.model_seed(self.config.seed, self.iteration, self.slots[0].start)
        return self.recorded(batch, head_scales(self.counts), seed)

    def _recorded_losses(self, inputs: Inputs) -> Tensor:
        images = self._normalized(inputs.images(self.config.size, self.how), inputs.looks)
        return self._losses_of(images, inputs.known)

    def _average(self) -> None:
        """Update the moving average. It starts with the weights after the first iteration that follows the warm-up."""
        steps = self.iteration - self.config.warmup
        if self.config.ema and steps > 0:
            self.average = self.average or Average(self.model, self.config.ema)
            self.average.update(steps)

    def state(self) -> StateDict:
        """The tensors that a checkpoint holds."""
        return checkpoint.training_state(self.model, self.optimizer, self.average.state if self.average else None)

    def restore(self, state: StateDict) -> None:
        """Continue from a state that `state` returned."""
        average = checkpoint.restore(self.model, self.optimizer, state)
        self.average = Average(self.model, self.config.ema, average) if average else None

    def averaged(self) -> AbstractContextManager[None]:
        """The model as it is scored and saved: with averaged weights, if there is an average."""
        return self.average.applied() if self.average else nullcontext()

    def _backward(self, batch: Batch, number: int) -> Tensor:
        """Add the gradients of one micro-batch's share of the loss. Returns its losses: (tasks,)."""
        torch.manual_seed(sampling.model_seed(self.config.seed, self.iteration, self.slots[number].start))
        losses = self._losses(batch)
        if self.sums and not self.still and number == len(self.slots) - 1:
            self.sums.begin()
        again = self.config.checkpointing and not self.still
        kept = batchnorm_adapt.statistics_kept(self.model.shared) if again else nullcontext()
        with kept, exact_gradients(self.model.shared):
            (losses.sum() / self.config.batch).backward()  # type: ignore[no-untyped-call]
        return losses.detach()

    def _rows(self, parts: Sequence[Batch], counts: Sequence[int], *, heads: bool = True) -> tuple[Tensor, Tensor]:
        """The loss of each task on this rank, (tasks,), and the gradients of these losses in the weights of the shared
        network, (tasks, weights), of the whole batch. heads: also add the gradients of the heads, of this rank.
        """
        parameters, own = moved(self.model.shared), self._own()
        losses, rows = [], task_gradients.no_gradients(len(counts), parameters)
        for number, batch in enumerate(parts):
            torch.manual_seed(sampling.model_seed(self.config.seed, self.iteration, self.slots[number].start))
            found = self._losses(batch) / self.config.batch
            kept = batchnorm_adapt.statistics_kept(self.model.shared) if self.config.checkpointing else nullcontext()
            with kept, exact_gradients(self.model.shared):
                task_gradients.add_jacobian(rows, found, counts, parameters)
                if heads:
                    found.sum().backward(inputs=own)  # type: ignore[no-untyped-call]
            losses.append(found.detach() * self.config.batch)
        self.ranks.all_reduce_([rows])
        return torch.stack(losses).sum(0), rows

    def _combine(self, rows: Tensor) -> None:
        """Make the combination of the tasks' gradients (tasks, weights) the gradient of the shared network."""
        seed = sampling.model_seed(self.config.seed, self.iteration, 0)  # all ranks: the same
        weights = conflicts.weights(self.config.gradients, task_gradients.gramian(rows), seed)
        task_gradients.put_gradient(weights.to(rows.dtype) @ rows, moved(self.model.shared))

    def cosines(self, *parts: Batch) -> dict[str, float]:
        """Cosines between the gradients of the tasks' losses on the batch of the next iteration, by pair of tasks.

        Nothing that the training depends on changes.
        """
        counts = self.ranks.all_reduced(torch.stack([part.counts for part in parts]).sum(0).tolist())()
        running = self.recorded.recording.running() if self.recorded else nullcontext()
        passes, self.passes = self.passes, self.plain  # compiled ones keep no graph
        try:
            with running, batchnorm_adapt.statistics_kept(self.model.shared):
                products = task_gradients.gramian(self._rows(parts, counts, heads=False)[1])
        finally:
            self.passes = passes
        return task_gradients.cosines(products, self.tasks)

    def _losses(self, batch: Batch) -> Tensor:
        """The loss of each task: (tasks,)."""
        own = (batch.labels, torch.repeat_interleave(batch.counts), batch.targets, batch.flips, batch.looks)
        labels, tasks, targets, flips, looks = (without_waiting(part, self.device) for part in own)
        dense = None if self.dense is None else self.dense.inputs(batch)
        known = Known(labels, tasks, targets, flips, looks, dense)
        return self._losses_of(self.prepare(batch), known)

    def _losses_of(self, images: Tensor, known: Known) -> Tensor:
        """The loss of each task: (tasks,). images: as `prepare` gives them.

        A shared network that stands still is in evaluation mode.
        """
        self.model.shared.train(not self.still)
        if self.config.batchnorm == "frozen":
            batchnorm_adapt.freeze(self.model.shared)
        batchnorm_per_task.route(self.model.shared, known.tasks)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            with torch.set_grad_enabled(not self.still):
                features, maps = self._features_and_maps(images)
            logits = self.model.heads(features)
        smoothing = self.config.label_smoothing
        losses = task_losses(logits, known.labels, known.tasks, self.model.heads, smoothing, known.targets)
        losses = losses if self.scale is None else losses * self.scale
        decode = self._current.decode
        if self.dense is None or known.dense is None or decode is None:
            return losses
        return losses + self.dense.losses(decode, maps, known.dense, known.flips, known.looks)

    @property
    def _current(self) -> Passes:
        return self.plain if self.still else self.passes

    def _features_and_maps(self, images: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """Features, and the maps that masks and points are found in, from one pass of the shared network."""
        return self._current.features(images)

    def _sum_over_ranks(self) -> None:
        """Make the gradients those of the whole batch, and the running statistics the mean over the ranks."""
        if self.ranks.alone:
            return
        tensors = [parameter.grad for parameter in self._own() if parameter.grad is not None]
        if not self.still:
            if self.sums:
                self.sums.finish()
            statistics = batchnorm_adapt.statistics_of_a_part(self.model.shared)
            tensors += [values.div_(self.ranks.size) for values in statistics]
        self.ranks.all_reduce_(tensors)

    def _own(self) -> list[nn.Parameter]:
        """The weights that belong to one task or to its masks and points: heads and decoder."""
        return [*self.model.heads.parameters(), *(self.model.dense.parameters() if self.model.dense else ())]

    def prepare(self, batch: Batch) -> Tensor:
        """The images on the device: flipped and further augmented as configured, normalized, channels last."""
        looks = without_waiting(batch.looks, self.device)
        return self._normalized(batch.to(self.device).images(self.config.size, self.how), looks)

    def _normalized(self, images: Tensor, looks: Tensor) -> Tensor:
        return self.model.shared.normalize(colour.changed(images, looks, self.config))

    def compile(self, note: Callable[[str], None]) -> None:
        """Have the networks compiled, if possible."""
        images = len(self.slots[0])
        example = torch.zeros(images, 3, self.config.size, self.config.size, device=self.device)
        shares = () if self.dense is None else decoded_images(images)
        self.passes = compiled(self.model, example.to(memory_format=torch.channels_last), note, shares)

    def validate(self, enough: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        """The scores of the heads on validation sets (see `validation.accuracies`); None if cut short."""
        return validation.accuracies(self, enough)

    def validate_dense(self, enough: Callable[[], bool] = lambda: False) -> dict[str, dict[str, float]] | None:
        """The scores of masks and points on validation sets (see `validation.dense_scores`); None if cut short."""
        return validation.dense_scores(self, enough)

    def count_correct(self, task: Task, rows: Rows, enough: Callable[[], bool]) -> int | None:
        """The number of right decisions of a task's head on rows of its validation set; None if cut short."""
        return validation.count_correct(self, task, rows, enough)
