"""What cohorts were measured to gain, kept between searches: ``calibration.json`` in the state folder."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path

import torch

from pipeline.files import write_atomic
from pipeline.training.calibration import choose


class Calibrations:
    """Gains by cost class, for this machine, this torch and one kind of device."""

    def __init__(self, path: Path, device: str) -> None:
        self._path = path
        self.device = device
        self._machine = f"{platform.node()} {platform.machine()} torch {torch.__version__}"
        self._gains: dict[str, dict[int, float]] = {}
        try:
            stored = json.loads(path.read_bytes())
            if stored["machine"] == self._machine:
                self._gains = {c: {int(k): float(v) for k, v in gains.items()} for c, gains in stored["gains"].items()}
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            self._gains = {}  # measured again: it costs less than a second a class

    def size(self, cost_class: str) -> int | None:
        """How many trials of this class to train together; None where it was not timed."""
        gains = self._gains.get(cost_class)
        return None if gains is None else choose(gains)

    def add(self, cost_class: str, gains: Mapping[int, float]) -> None:
        """Keep a measurement."""
        self._gains[cost_class] = dict(gains)
        body = {"machine": self._machine, "gains": self._gains}
        write_atomic(self._path, json.dumps(body, indent=1, sort_keys=True).encode())
