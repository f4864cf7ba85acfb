"""The space of optimisation: the same names for every family, so that what is learned of one helps the others."""

from __future__ import annotations

from typing import Final

from pipeline.data.spec import DataSpec
from pipeline.training.config import LossName, OptimisationConfig
from search_spaces.suggester import Suggester, Value

NO_CLIPPING: Final = 0.0
"""How the parameter ``train.clip_norm`` says None."""
IMBALANCE: Final = 3
"""From this ratio of the largest class to the smallest, weights for classes are searched."""


def suggest_optimisation(s: Suggester, spec: DataSpec, family: str) -> OptimisationConfig:
    """One flat space, but for SGD: its rates are of another size, so they have a name and a range of their own.

    Sources: rates of the adaptive methods up to 1e-2 (arXiv 2106.11959 tunes 1e-5 to 1e-2), widened for small networks;
    of SGD around 0.1 (arXiv 1512.03385); momentum 0.9 to 0.99 (Sutskever et al., ICML 2013) and somewhat below; weight
    decay 1e-6 to 1e-3 (arXiv 2106.11959) and 1e-4 to 1e-1 (arXiv 2410.24210) joined; label smoothing around 0.1
    (arXiv 1512.00567); clipping after arXiv 1211.5063; focal loss arXiv 1708.02002; warm-up arXiv 1706.02677;
    class weights between none and the inverse of the class's share (King and Zeng, Political Analysis 2001; arXiv
    1901.05555 finds the best in between).
    """
    classes = not spec.is_quantity
    optimizer = s.choice("optimizer.name", ("adamw", "adam", "rmsprop", "sgd"))
    default = default_optimisation(spec, family)
    if optimizer == "sgd":
        lr = s.number("optimizer.sgd_lr", 1e-3, 0.5, log=True)
        momentum = s.number("optimizer.momentum", 0.8, 0.99)
    else:
        lr = s.number("optimizer.lr", 1e-4, 3e-2, log=True)
        momentum = 0.0 if optimizer == "rmsprop" else default.momentum
    clip_norm = s.choice("train.clip_norm", (NO_CLIPPING, 0.5, 1.0, 5.0))
    return OptimisationConfig(
        optimizer=optimizer,
        lr=lr,
        momentum=momentum,
        weight_decay=s.number("optimizer.weight_decay", 1e-6, 1e-1, log=True),
        l1=s.choice("optimizer.l1", (0.0, 1e-6, 1e-5, 1e-4)),
        beta2=default.beta2,
        schedule=s.choice("schedule.name", ("constant", "cosine", "one_cycle", "step")),
        warmup=s.number("schedule.warmup", 0.0, 0.2),
        batch_size=s.choice("train.batch_size", batch_sizes(spec)),
        loss=s.choice("loss.name", _CLASS_LOSSES if classes else _REGRESSION_LOSSES),
        label_smoothing=s.number("loss.label_smoothing", 0.0, 0.2) if classes else 0.0,
        class_weight_power=s.choice("loss.class_weight_power", (0.0, 0.5, 1.0)) if is_imbalanced(spec) else 0.0,
        clip_norm=None if clip_norm == NO_CLIPPING else clip_norm,
    )


_CLASS_LOSSES: Final[tuple[LossName, ...]] = ("cross_entropy", "focal")
_REGRESSION_LOSSES: Final[tuple[LossName, ...]] = ("mse", "huber", "mae")


def is_imbalanced(spec: DataSpec) -> bool:
    """Whether the largest class has so many times the rows of the smallest that weights are worth a choice."""
    return bool(spec.class_counts) and max(spec.class_counts) >= IMBALANCE * max(1, min(spec.class_counts))


def batch_sizes(spec: DataSpec) -> tuple[int, ...]:
    """Small sets need the steps that small batches give; on large ones larger batches are faster, at no loss up to a
    size that depends on the problem (Shallue et al., arXiv 1811.03600), which is why it is searched."""
    if spec.n_train < 5_000:
        return (16, 32, 64, 128)
    if spec.n_train < 50_000:
        return (64, 128, 256, 512)
    return (128, 256, 512, 1024)


def default_optimisation(spec: DataSpec, family: str) -> OptimisationConfig:
    """AdamW at 2e-3 with a cosine schedule, which reached the scores that the families' defaults quote. The gradient is
    clipped for recurrent networks only: theirs can explode (arXiv 1211.5063)."""
    return OptimisationConfig(
        optimizer="adamw",
        lr=2e-3,
        weight_decay=1e-2,
        schedule="cosine",
        batch_size=batch_sizes(spec)[1],
        loss="mse" if spec.is_quantity else "cross_entropy",
        clip_norm=1.0 if family == "lstm" else None,
    )


def optimisation_params(config: OptimisationConfig) -> dict[str, Value]:
    """The values under which `suggest_optimisation` gives this config back, where its space holds it."""
    return {
        "optimizer.name": config.optimizer,
        "optimizer.sgd_lr" if config.optimizer == "sgd" else "optimizer.lr": config.lr,
        "optimizer.momentum": config.momentum,
        "optimizer.weight_decay": config.weight_decay,
        "optimizer.l1": config.l1,
        "schedule.name": config.schedule,
        "schedule.warmup": config.warmup,
        "train.batch_size": config.batch_size,
        "loss.name": config.loss,
        "loss.label_smoothing": config.label_smoothing,
        "loss.class_weight_power": config.class_weight_power,
        "train.clip_norm": NO_CLIPPING if config.clip_norm is None else config.clip_norm,
    }
