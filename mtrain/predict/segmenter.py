"""A run's decoder of masks and points for one task: images in, maps of logits out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtrain.data.batches.augment import square
from mtrain.data.rows import DenseTargets
from mtrain.errors import UsageError
from mtrain.model.dense.dense_file import load_dense
from mtrain.model.dense.dense_network import enlarged, own_maps
from mtrain.model.dense.maps import features_and_maps
from mtrain.predict.classifier import Classifier
from mtrain.runs.run_folder import Run


class Segmenter:
    """Finds the masks and points of the classifier's task by the decoder of the same run.

    Raises:
        RunError: the run has no decoder.
        UsageError: the decoder finds nothing for this task.
    """

    def __init__(self, run: Run, classifier: Classifier) -> None:
        network = load_dense(run.dense)
        self.task, self.size, self.classifier = classifier.about.task, classifier.size, classifier
        if self.task not in network.tasks:
            raise UsageError(
                f"the decoder of this run finds no masks and points of {self.task}",
                where=run.path,
                remedy=f"choose one with --task: {', '.join(network.tasks)}",
            )
        self.of: DenseTargets = network.tasks[self.task]
        self.network = network.to(classifier.device)

    def logits(self, raw_images: Sequence[NDArray[np.uint8]]) -> tuple[Tensor | None, Tensor | None]:
        """Logits of masks (N, classes, S, S), and of points (N, classes, h, w), on the CPU; None for a kind that the
        task has not. S is the input size of the network, to which images are resized as in training.
        """
        shared = self.classifier.network
        arrays = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in raw_images]
        images = torch.stack([square(array, self.size, how=shared.interpolation) for array in arrays])
        pixels = shared.normalize(images.to(self.classifier.device))
        with self.classifier.inference.running():
            _, maps = features_and_maps(shared, shared.body, self.network.levels, pixels)
            logits = own_maps(self.network.heads[self.task], self.network.decoder(maps)).float()
        classes = len(self.of.seg)
        seg = enlarged(logits[:, :classes], self.size).cpu() if classes else None
        return seg, (logits[:, classes:].cpu() if self.of.points else None)
