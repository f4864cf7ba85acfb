"""Experiment tracking: the `Tracker` port, an in-memory fake, a thread that keeps it off the search's path; EDGE mlflow."""

from __future__ import annotations

from pipeline.tracking.environment import configure

configure()  # before any module of this package imports MLflow
