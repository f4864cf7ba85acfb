"""Which devices there are, and the slots that worker processes train in."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final, Literal

import torch

from pipeline.errors import ConfigError
from pipeline.text import shown

_VISIBLE_DEVICE: Final = re.compile(r"-1|\d{1,4}|(GPU|MIG)-[0-9A-Za-z/-]+|NoDevFiles")


@dataclass(frozen=True, slots=True)
class Slot:
    """A place where one worker process trains: a GPU, a share of one, or a group of cores."""

    index: int
    device: str
    """``cpu`` or ``cuda:<index>``."""
    threads: int

    @property
    def name(self) -> str:
        return f"{self.device}/{self.index}"


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def _check_visible_devices(value: str) -> None:
    """CUDA takes a list that it cannot read for an empty one: a search would train on the CPU unnoticed."""
    entries = [entry.strip() for entry in value.split(",")]
    if value.strip() and not all(_VISIBLE_DEVICE.fullmatch(entry) for entry in entries):
        raise ConfigError(
            f"the environment variable CUDA_VISIBLE_DEVICES must list GPUs by number or UUID, but is {shown(value)}",
            "correct or unset it",
        )


def find_slots(
    devices: Literal["auto", "cpu", "cuda"] | tuple[str, ...] = "auto",
    slots_per_device: Literal["auto"] | int = "auto",
) -> tuple[Slot, ...]:
    """The slots of this machine.

    On a CPU the default is a worker a core with one thread each: two OpenMP threads a worker were 2 to 35 times slower
    on busy cores. On a GPU it is one worker a GPU.

    Raises:
        ConfigError: a device that is not there, more CPU slots than cores, or an unreadable ``CUDA_VISIBLE_DEVICES``.
    """
    _check_visible_devices(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    n_cores, n_gpus = cores(), torch.cuda.device_count()
    if devices == "auto":
        names: tuple[str, ...] = tuple(f"cuda:{i}" for i in range(n_gpus)) or ("cpu",)
    elif devices == "cuda":
        names = tuple(f"cuda:{i}" for i in range(n_gpus))
        if not names:
            raise ConfigError("`resources.devices` asks for cuda, but this machine has no GPU", "use auto or cpu")
    else:
        names = ("cpu",) if devices == "cpu" else devices
    for name in names:
        if name != "cpu" and name not in {f"cuda:{i}" for i in range(n_gpus)}:
            raise ConfigError(
                f"`resources.devices` must name devices of this machine, but got {name!r} of {n_gpus} GPUs",
                "use auto, cpu or cuda:0 to the last GPU's index",
            )
    slots: list[Slot] = []
    for name in names:
        n_slots = slots_per_device if slots_per_device != "auto" else (n_cores if name == "cpu" else 1)
        if name == "cpu" and n_slots > n_cores:
            raise ConfigError(
                f"`resources.slots_per_device` must be <= the {n_cores} cores there are, but got {n_slots}",
                "use auto or a smaller number",
            )
        threads = max(1, n_cores // n_slots) if name == "cpu" else max(1, n_cores // (n_slots * len(names)))
        slots += [Slot(len(slots) + i, name, threads) for i in range(n_slots)]
    return tuple(slots)
