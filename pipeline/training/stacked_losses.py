"""The losses of a cohort: `pipeline.training.losses` with a member axis in front.

Axes: K members, B rows, C classes, H values that are forecast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.data.spec import DataSpec
from pipeline.training.augmentation import partners
from pipeline.training.config import LossName, OptimisationConfig
from pipeline.training.losses import FOCAL_GAMMA, REGRESSION, class_weights

_SLOPES: Final[dict[LossName, Callable[[Tensor], Tensor]]] = {
    "mse": lambda error: 2 * error,
    "huber": lambda error: error.clamp(-1, 1),  # delta is torch's own, 1
    "mae": torch.sign,
}
"""The gradients of `pipeline.training.losses.REGRESSION` to a prediction."""


class StackedLoss:
    """Each member's own loss: with its label smoothing and class weights.

    Args:
        configs: of each member; all have one kind of loss.
    """

    def __init__(self, configs: Sequence[OptimisationConfig], spec: DataSpec, device: torch.device) -> None:
        self._name, self._forecast = configs[0].loss, spec.task == "forecast"
        self._n_outputs = spec.n_outputs
        dtype = torch.get_default_dtype()
        smoothing = [config.label_smoothing for config in configs]
        smoothing_K1 = torch.tensor(smoothing, dtype=dtype, device=device)[:, None]
        self._smoothing_K1 = smoothing_K1 if any(smoothing) else None
        # Of log probabilities in a row's cross entropy: of any class, and of the true one.
        self._any_K11 = -(smoothing_K1 / spec.n_outputs)[:, :, None]
        self._true_K11 = self._any_K11 + (smoothing_K1 - 1)[:, :, None]
        self._coefficients: dict[tuple[int, torch.dtype], tuple[Tensor, Tensor]] = {}
        """Both in the mean over so many rows."""
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
        if self._name == "cross_entropy":
            return self._cross_entropy(outputs_KBC, target_KB, own_K1)
        mean = self._error if self._name in _SLOPES else self._focal
        if own_K1 is None:
            return mean(outputs_KBC, target_KB, None)
        own_K, to_own_KBC = mean(outputs_KBC, target_KB, own_K1)
        other_K, to_other_KBC = mean(outputs_KBC, partners(target_KB), 1 - own_K1)
        return own_K + other_K, to_own_KBC + to_other_KBC

    def unweighted(self, outputs_KBC: Tensor, target_KB: Tensor) -> Tensor:
        """The same without smoothing and weights: what validation reports, ``(K,)``."""
        return self._rows(outputs_KBC, target_KB, None).mean(1)

    def _focal(self, outputs_KBC: Tensor, target_KB: Tensor, weight_KB: Tensor | None) -> tuple[Tensor, Tensor]:
        """The mean over the rows, each with its weight, and its gradient, which is autograd's."""
        if self._weights_KC is not None:
            by_class_KB = self._weights_KC.gather(1, target_KB)
            weight_KB = by_class_KB if weight_KB is None else weight_KB * by_class_KB
        with torch.enable_grad():
            outputs_KBC = outputs_KBC.detach().requires_grad_()
            losses_KB = self._rows(outputs_KBC, target_KB, self._smoothing_K1)
            losses_K = (losses_KB if weight_KB is None else losses_KB * weight_KB).mean(1)
        # Of a sum: gradients of several values at once would import sympy, and check its shapes at every step.
        (gradient_KBC,) = torch.autograd.grad(losses_K.sum(), outputs_KBC)
        return losses_K.detach(), gradient_KBC

    def _error(self, outputs_KBC: Tensor, target_KB: Tensor, weight_KB: Tensor | None) -> tuple[Tensor, Tensor]:
        """The same of quantities by hand, in a third of autograd's time."""
        losses_KB = self._rows(outputs_KBC, target_KB, None)
        target_KBC = target_KB if self._forecast else target_KB[:, :, None]
        gradient_KBC = _SLOPES[self._name](outputs_KBC - target_KBC) / outputs_KBC[0].numel()
        if weight_KB is not None:
            losses_KB = losses_KB * weight_KB
            gradient_KBC *= weight_KB[:, :, None]
        return losses_KB.mean(1), gradient_KBC.to(outputs_KBC.dtype)

    def _cross_entropy(self, outputs_KBC: Tensor, target_KB: Tensor, own_K1: Tensor | None) -> tuple[Tensor, Tensor]:
        """By hand, in half the operations: the mean is a sum of log probabilities, whose coefficients do not depend on
        the outputs, and the gradient is a log softmax's to them."""
        log_p_KCB = _log_softmax(outputs_KBC)
        aim_KCB = self._aim(target_KB, log_p_KCB.dtype)
        if own_K1 is not None:
            aim_KCB = torch.lerp(self._aim(partners(target_KB), log_p_KCB.dtype), aim_KCB, own_K1[:, :, None])
        gradient_KCB = torch._log_softmax_backward_data(aim_KCB, log_p_KCB, 1, log_p_KCB.dtype)
        return (aim_KCB * log_p_KCB).sum((1, 2)), gradient_KCB.transpose(1, 2).to(outputs_KBC.dtype)

    def _aim(self, target_KB: Tensor, dtype: torch.dtype) -> Tensor:
        """The coefficients of the log probabilities, ``(K, C, B)``."""
        K, B = target_KB.shape
        if (B, dtype) not in self._coefficients:
            any_KCB = (self._any_K11 / B).to(dtype).expand(K, self._n_outputs, B).contiguous()
            self._coefficients[B, dtype] = any_KCB, (self._true_K11 / B).to(dtype).expand(K, 1, B)
        any_KCB, true_K1B = self._coefficients[B, dtype]
        aim_KCB = any_KCB.scatter(1, target_KB[:, None], true_K1B)
        return aim_KCB if self._weights_KC is None else aim_KCB * self._weights_KC.gather(1, target_KB)[:, None]

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
