"""The losses of a cohort: `pipeline.training.losses` with a member axis in front.

Axes: K members, B rows, C classes, H values that are forecast.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.data.spec import DataSpec
from pipeline.training.augmentation import partners
from pipeline.training.config import OptimisationConfig
from pipeline.training.losses import FOCAL_GAMMA, REGRESSION, class_weights


class StackedLoss:
    """Each member's own loss: with its label smoothing and class weights.

    Args:
        configs: of each member; all have one kind of loss.
    """

    def __init__(self, configs: Sequence[OptimisationConfig], spec: DataSpec, device: torch.device) -> None:
        self._name, self._forecast = configs[0].loss, spec.task == "forecast"
        dtype = torch.get_default_dtype()
        smoothing = [config.label_smoothing for config in configs]
        smoothing_K1 = torch.tensor(smoothing, dtype=dtype, device=device)[:, None]
        self._smoothing_K1 = smoothing_K1 if any(smoothing) else None
        self._less_true_K11 = (smoothing_K1 - 1)[:, :, None]
        """What the true class takes from its softmax in the gradient."""
        weights = [class_weights(config, spec) for config in configs]
        self._weights_KC: Tensor | None = None
        if any(w is not None for w in weights):
            alike = (1.0,) * spec.n_outputs
            by_member = [alike if w is None else w for w in weights]
            self._weights_KC = torch.tensor(by_member, dtype=dtype, device=device)

    def descend(self, outputs_KBC: Tensor, target_KB: Tensor, own_K1: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the members descend, ``(K,)``, the mean over their rows, and its gradient to the outputs.

        Args:
            outputs_KBC: ``(K, B, C)``; of forecasts ``(K, B, H)``.
            target_KB: codes or values ``(K, B)``; of forecasts ``(K, B, H)``.
            own_K1: where rows are mixed with their partners, the share that is their own.
        """
        if own_K1 is None:
            return self._mean(outputs_KBC, target_KB, None)
        own_K, to_own_KBC = self._mean(outputs_KBC, target_KB, own_K1)
        other_K, to_other_KBC = self._mean(outputs_KBC, partners(target_KB), 1 - own_K1)
        return own_K + other_K, to_own_KBC + to_other_KBC

    def unweighted(self, outputs_KBC: Tensor, target_KB: Tensor) -> Tensor:
        """The same without smoothing and weights: what validation reports, ``(K,)``."""
        return self._rows(outputs_KBC, target_KB, None).mean(1)

    def _mean(self, outputs_KBC: Tensor, target_KB: Tensor, weight_KB: Tensor | None) -> tuple[Tensor, Tensor]:
        """The mean over the rows, each with its weight, and its gradient."""
        if self._weights_KC is not None:
            by_class_KB = self._weights_KC.gather(1, target_KB)
            weight_KB = by_class_KB if weight_KB is None else weight_KB * by_class_KB
        if self._name == "cross_entropy":
            return self._cross_entropy(outputs_KBC, target_KB, weight_KB)
        with torch.enable_grad():
            outputs_KBC = outputs_KBC.detach().requires_grad_()
            losses_KB = self._rows(outputs_KBC, target_KB, self._smoothing_K1)
            losses_K = (losses_KB if weight_KB is None else losses_KB * weight_KB).mean(1)
        # Of a sum: gradients of several values at once would import sympy, and check its shapes at every step.
        (gradient_KBC,) = torch.autograd.grad(losses_K.sum(), outputs_KBC)
        return losses_K.detach(), gradient_KBC

    def _cross_entropy(self, outputs_KBC: Tensor, target_KB: Tensor, weight_KB: Tensor | None) -> tuple[Tensor, Tensor]:
        """`_mean` by hand, which is a handful of operations where autograd's are a dozen. The gradient is a row's
        softmax less what it should be: 1 at the true class, smoothed."""
        log_p_KCB = _log_softmax(outputs_KBC)
        _, losses_KB = _cross_entropies(log_p_KCB, target_KB, self._smoothing_K1)
        K, C, B = log_p_KCB.shape
        gradient_KCB = log_p_KCB.exp()
        if self._smoothing_K1 is not None:
            gradient_KCB -= (self._smoothing_K1 / C)[:, :, None]
        gradient_KCB.scatter_add_(1, target_KB[:, None], self._less_true_K11.to(log_p_KCB.dtype).expand(K, 1, B))
        if weight_KB is not None:
            losses_KB = losses_KB * weight_KB
            gradient_KCB *= weight_KB[:, None]
        gradient_KCB *= 1 / B
        return losses_KB.mean(1), gradient_KCB.transpose(1, 2).to(outputs_KBC.dtype)

    def _rows(self, outputs_KBC: Tensor, target_KB: Tensor, smoothing_K1: Tensor | None) -> Tensor:
        """Each member's loss of each row, ``(K, B)``."""
        if self._name in {"cross_entropy", "focal"}:
            true_KB, smooth_KB = _cross_entropies(_log_softmax(outputs_KBC), target_KB, smoothing_K1)
            return smooth_KB if self._name == "cross_entropy" else (1 - (-true_KB).exp()).pow(FOCAL_GAMMA) * smooth_KB
        regression = REGRESSION[self._name]
        if self._forecast:
            return regression(outputs_KBC, target_KB, reduction="none").mean(2)
        return regression(outputs_KBC[:, :, 0], target_KB, reduction="none")


def _log_softmax(outputs_KBC: Tensor) -> Tensor:
    """``(K, C, B)``: dense stacks give outputs with the rows last in memory, and the softmax runs along them.

    Never in a narrow type; autocast sees to that on a GPU and not on a CPU.
    """
    return F.log_softmax(outputs_KBC.transpose(1, 2), 1, dtype=torch.promote_types(outputs_KBC.dtype, torch.float32))


def _cross_entropies(log_p_KCB: Tensor, target_KB: Tensor, smoothing_K1: Tensor | None) -> tuple[Tensor, Tensor]:
    """Each row's cross entropy, ``(K, B)``, without and with label smoothing."""
    true_KB = -log_p_KCB.gather(1, target_KB[:, None])[:, 0]
    return true_KB, true_KB if smoothing_K1 is None else torch.lerp(true_KB, -log_p_KCB.mean(1), smoothing_K1)
