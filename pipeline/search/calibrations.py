"""What cohorts were measured to gain, kept between searches: ``calibration.json`` in the state folder.

A gain falls as trials grow: what stacking saves is launches, and a large net's time is arithmetic. So a class between
timed ones often needs no timing of its own.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

import torch

from pipeline.data.spec import DataSpec
from pipeline.files import write_atomic
from pipeline.models import FAMILIES
from pipeline.training.calibration import WORTH, CostClass, best_size, cost_class, time_together
from pipeline.training.config import TrialConfig
from pipeline.training.stacked import shape_class

ALONE_AGREED = 2
"""So many smaller classes that gain nothing speak for a larger one; a single timing may be noise."""
ALONE: Final[Mapping[int, float]] = {1: 1.0}
"""Of a class that gains nothing."""


class Calibrations:
    """Gains by cost class, for this machine, this torch and one kind of device."""

    def __init__(self, path: Path, device: str) -> None:
        self._path = path
        self.device = device
        self._machine = f"{platform.node()} {platform.machine()} torch {torch.__version__}"
        self._gains: dict[CostClass, dict[int, float]] = {}
        try:
            stored = json.loads(path.read_bytes())
            if stored["machine"] == self._machine:
                for row in stored["classes"]:
                    gains = {int(size): float(gain) for size, gain in row.pop("gains").items()}
                    self._gains[CostClass(**row)] = gains
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            self._gains = {}  # measured again: it costs less than a second a class

    def gains(self, cost_class: CostClass) -> Mapping[int, float] | None:
        """Trial-epochs a second relative to one alone, by cohort size; None where that must be timed.

        Timed itself, or known from its neighbours: a larger class gains at the limit, or smaller ones gain nothing.
        """
        stack = FAMILIES[cost_class.family].stack
        if stack is None or cost_class.device not in stack.devices:
            return ALONE
        if cost_class in self._gains:
            return self._gains[cost_class]
        alike = {
            other.work: gains
            for other, gains in self._gains.items()
            if (other.family, other.device, other.limit) == (cost_class.family, cost_class.device, cost_class.limit)
        }
        larger = [gains for work, gains in sorted(alike.items()) if work > cost_class.work]
        known = next((gains for gains in larger if best_size(gains) == cost_class.limit), None)
        if known is not None:
            return known
        smaller = [gains for work, gains in sorted(alike.items()) if work < cost_class.work]
        if sum(best_size(gains) == 1 for gains in smaller) >= ALONE_AGREED:
            return ALONE
        return None

    def together_pays(self, config: TrialConfig, spec: DataSpec, n_members: int) -> bool:
        """Whether so many of one config were measured to train clearly faster as one computation than in turn."""
        if n_members == 1 or shape_class(config, spec) is None:
            return False
        timed = [
            gains for known, gains in self._gains.items() if known == cost_class(config, spec, self.device, known.limit)
        ]
        return bool(timed) and time_together(max(timed, key=len), n_members) * WORTH < n_members

    def add(self, cost_class: CostClass, gains: Mapping[int, float]) -> None:
        """Keep a measurement."""
        self._gains[cost_class] = dict(gains)
        rows = [{**asdict(timed), "gains": gained} for timed, gained in self._gains.items()]
        body = {"machine": self._machine, "classes": rows}
        write_atomic(self._path, json.dumps(body, indent=1, sort_keys=True).encode())
