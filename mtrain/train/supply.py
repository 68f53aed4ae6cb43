"""The supply of batches of a training: which images an iteration draws, how loader processes make batches of them, and
which of them are in the memory of the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from mtrain.backbones.card import Interpolation
from mtrain.config import FitConfig
from mtrain.data import sampling
from mtrain.data.batches.batch import Batch
from mtrain.data.batches.image_batches import TrainingBatches
from mtrain.data.batches.images import Images
from mtrain.data.batches.loader import Batches, Parts, Skipping, Waiting, batches_on
from mtrain.data.batches.resident import ResidentImages
from mtrain.data.dense_sample import most_objects
from mtrain.data.labels import widest
from mtrain.data.mixing import mixture
from mtrain.data.pool import Pool
from mtrain.data.stream import StreamBatches
from mtrain.data.targets import MasksAndPoints
from mtrain.train.distributed import Ranks


class BatchSupply:
    """Batches of the training sets of `pool`, on `device`: one rank's share of each.

    how: the interpolation that the shared network was trained with. dense: whether batches have masks and points.
    """

    def __init__(
        self, config: FitConfig, pool: Pool, device: torch.device, ranks: Ranks, *, how: Interpolation, dense: bool
    ) -> None:
        self.config, self.pool, self.device, self.how = config, pool, device, how
        rows = [(task, task.rows["train"]) for task in pool.tasks]
        self.images = None if config.stream else Images(rows, how=how, scaled=True)
        self.width = widest(pool.tasks)  # of the targets of images that do not have one class
        self.objects = most_objects((task.dense, of_task) for task, of_task in rows) if dense else None
        self.targets = MasksAndPoints(rows) if dense and not config.stream else None
        self.resident: ResidentImages | None = None  # training images in the memory of the device
        self.skipping, self.waiting = Skipping(config.skip_corrupt), Waiting()
        self.slots = [ranks.share(config.batch, part, config.accumulate) for part in range(config.accumulate)]
        self.mixture = mixture(config, pool)

    def waited(self) -> float:
        """Seconds for which batches have been waited for."""
        return self.waiting.seconds

    def iterations(self, numbers: range) -> Iterator[tuple[Batch, ...]]:
        """For each of these iterations, the micro-batches of this rank's share."""
        return zip(*[self.drawn(numbers)] * len(self.slots), strict=True)

    def drawn(
        self, numbers: range, stream: sampling.Stream = sampling.Stream.TRAIN, slots: Sequence[range] | None = None
    ) -> Iterator[Batch]:
        """The batches of these iterations, as micro-batches of these slots, by default of this rank's share.

        On the CPU their memory is reused: the micro-batches of one iteration stay valid until the next one.
        """
        config = self.config
        parts = slots or self.slots
        dataset = Parts([self._batches(part, stream) for part in parts])
        items = range(numbers.start * len(parts), numbers.stop * len(parts))
        return batches_on(
            self.device,
            dataset,
            items,
            workers=config.workers,
            lasting=len(parts),
            skipping=self.skipping,
            send=self._from_memory(dataset, items),
            waiting=self.waiting,
        )

    def _from_memory(self, dataset: Parts, items: range) -> Callable[[Batch, int], Batch] | None:
        """Sends the batch at a position of `items` with its resident images; None if there are none."""
        resident = self.resident

        def send(batch: Batch, position: int) -> Batch:
            item, part = divmod(items[position], len(dataset.parts))
            batches = dataset.parts[part]
            assert isinstance(batches, TrainingBatches)
            assert resident is not None
            drawn = batches.drawn(item)
            return resident.sent(batch, drawn.index, drawn.place)

        return None if resident is None else send

    def _batches(self, slots: range, stream: sampling.Stream) -> Batches:
        config, mixture, skip = self.config, self.mixture, self.config.skip_corrupt > 0
        looks = bool(config.rotations or config.stain_jitter or config.colour_jitter)
        if self.images is None:
            tasks = self.pool.tasks
            return StreamBatches(
                tasks,
                config.size,
                config.seed,
                slots,
                stream,
                skip=skip,
                mixture=mixture,
                looks=looks,
                how=self.how,
                dense=self.objects is not None,
            )
        return TrainingBatches(
            self.images,
            config.size,
            config.seed,
            slots,
            stream,
            skip=skip,
            mixture=mixture,
            looks=looks,
            targets=self.targets,
            resident=None if self.resident is None else self.resident.shapes,
        )
