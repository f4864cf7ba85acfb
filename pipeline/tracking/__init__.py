"""Experiment tracking: the `Tracker` port, a fake in memory, a thread that keeps it out of the way; EDGE mlflow."""

from __future__ import annotations

from pipeline.tracking.environment import configure

configure()  # before any module of this package imports MLflow
