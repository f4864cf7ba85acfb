"""Training images that change at random, in the scripts of trials that chose so."""

from __future__ import annotations

import torch

from pipeline.packaging.script.plan import Plan
from pipeline.training.augmentation import Augmenter


def changed_images(plan: Plan, seed: int) -> Augmenter:
    """What changes the batches of a training with this seed, as it did in the search."""
    return Augmenter([plan.augmentation], [seed], torch.device("cpu"))
