"""Orchestration: the command line, the Prefect flow, and the plain stages that both run."""
