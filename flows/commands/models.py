"""``automl predict``, ``promote``, ``rollback`` and ``models``: what concerns the registry."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from flows.commands.loading import find_search, load
from flows.commands.shown import Shown, lines, table
from flows.environment import configure
from flows.notify import tell_of_move
from flows.workspace import Workspace, find_workspace
from pipeline.config import NAME, is_name, load_experiment
from pipeline.data.source import read_features
from pipeline.errors import GateError, InputError
from pipeline.packaging.predictor import Predictor
from pipeline.records import read_record, trial_directory
from pipeline.registry.base import CHAMPION, ModelVersion
from pipeline.registry.ledger import Move, history, last_move
from pipeline.registry.loading import load_version
from pipeline.registry.promotion import rollback
from pipeline.text import shown

NONE_YET = "no registered models yet; `automl run FILE` registers the first"


def open_registry(workspace: Workspace, tracking_uri: str) -> Any:
    """The registry of an existing store.

    Raises:
        InputError: there is no such store; looking must not create one.
    """
    if not workspace.has_store(tracking_uri):
        raise InputError(
            f"no registered models: {workspace.tracking_uri(tracking_uri)} does not exist",
            "`automl run FILE` registers the first; --tracking-uri names another store",
        )
    configure(workspace.prefect_home)
    from pipeline.registry.mlflow import MLflowRegistry
    from pipeline.tracking.store import BRIEF_S

    return MLflowRegistry(workspace.tracking_uri(tracking_uri), workspace.state / "registry", BRIEF_S)


def _parts(model: str) -> tuple[str, str, str]:
    """Name, alias and version of ``NAME``, ``NAME@alias`` or ``NAME/3``; empty where they are not given.

    Raises:
        InputError: anything else.
    """
    name, _, alias = model.partition("@")
    name, _, number = name.partition("/")
    if not is_name(name) or (alias and not is_name(alias)) or (number and not number.isdecimal()):
        raise InputError(
            f"a model must be NAME, NAME@ALIAS or NAME/VERSION, but got {shown(model)}", "see `automl models`"
        )
    return name, alias, number


def _check_name(model: str) -> None:
    if not is_name(model):
        raise InputError(f"a model's name must match {NAME.pattern}, but got {shown(model)}", "see `automl models`")


def _check_output(output: Path) -> None:
    """Raises InputError where predictions cannot be written, before they are made."""
    if output.suffix not in {".csv", ".parquet"}:
        raise InputError(f"the output must be a .csv or .parquet file, but got {shown(output.name)}", "rename it")
    check_writable(output)


def check_writable(output: Path) -> None:
    """Raises InputError where a file cannot be written."""
    if output.exists() and not output.is_file():
        raise InputError(f"the output {shown(str(output))} exists and is no file", "choose another name")
    folder = next(parent for parent in output.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(output if output.exists() else folder, os.W_OK, effective_ids=True):
        raise InputError(f"the output {shown(str(output))} cannot be written", "choose another folder")


def find_version(registry: Any, model: str) -> ModelVersion:
    """The version that ``NAME``, ``NAME@alias`` or ``NAME/3`` means.

    Raises:
        InputError: there is none.
    """
    name, alias, number = _parts(model)
    versions: tuple[ModelVersion, ...] = registry.versions(name)
    if not versions:
        known = ", ".join(registry.names()) or "none yet"
        raise InputError(f"no registered model {name!r}", f"registered models: {known}")
    for version in versions:
        if (number and str(version.version) == number) or (not number and (alias or CHAMPION) in version.aliases):
            return version
    raise InputError(
        f"model {name} has no {f'version {number}' if number else f'alias {alias or CHAMPION}'}",
        f"see `automl models {name}`",
    )


def predict_source(model: str, source: str, output: Path, tracking_uri: str) -> Shown:
    """Write predictions for every row of a source, in its order."""
    _check_output(output)
    _parts(model)
    workspace = find_workspace()
    registry = open_registry(workspace, tracking_uri)
    version = find_version(registry, model)
    with tempfile.TemporaryDirectory(prefix="automl-predict-") as scratch:
        predictor: Predictor = load_version(registry, version, Path(scratch))
        spec = predictor.spec
        shape = (spec.channels, spec.height, spec.width) if spec.kind == "image" else None
        features = read_features(source, spec.kind, shape=shape)
        predictions = predictor.predict(features)
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ".csv":
        if "set" in predictions:
            predictions["set"] = predictions["set"].map(json.dumps)
        predictions.to_csv(output, index=False)
    else:
        predictions.to_parquet(output, index=False)
    value = {"model": version.name, "version": version.version, "rows": len(predictions), "output": str(output)}
    return lines(value, f"{len(predictions)} rows predicted with {version.name} v{version.version}: {output}")


def promote_trial(
    file: Path, overrides: tuple[str, ...], search: str | None, trial: int | None, force: bool, reason: str | None
) -> Shown:
    """Gates again for the winner, or a forced move for any completed trial.

    Raises:
        InputError: --force without --reason, or a trial that did not complete.
        GateError: a gate is not passed.
    """
    if force and not reason:
        raise InputError("--force needs --reason TEXT", "say why; it goes to the ledger")
    if trial is not None and not force:
        raise InputError("--trial needs --force: the gates judge the winner only", "add --force --reason TEXT")
    config, root, workspace = load(file, overrides)
    state = find_search(workspace, config.name, search)
    configure(workspace.prefect_home)
    from flows import stages
    from flows.run import open_run

    with open_run(config, root, workspace, lambda _progress: None) as run:
        prepared = run.prepare()
        evaluated = run.evaluate(prepared, state)
        if not force:
            promotion = run.promote(prepared, state, evaluated, asked=True)
            if not promotion.promoted and promotion.version is None:
                raise GateError(promotion.line)
            if promotion.promoted:
                move = promotion.move(config.registered_model, workspace.ledger)
                tell_of_move(config.notify, "promoted", config.name, promotion.line, move)
            return lines(
                {"promoted": promotion.promoted, "version": promotion.version, "line": promotion.line}, promotion.line
            )
        number = evaluated.evaluation.winner.trial if trial is None else trial
        record = read_record(trial_directory(workspace.search(state.id), number))
        if record is None or record.state != "COMPLETE":
            raise InputError(
                f"trial {number} of {state.id} did not complete", f"see `automl leaderboard {config.name}`"
            )
        champion = run.stores.registry.champion(config.registered_model)
        run_id = evaluated.runs.get(number) or run.stores.tracker.finish_trial(
            record, stages.package_trial(workspace, prepared, record)
        )
        version = stages.make_champion(
            run.experiment,
            state,
            number,
            run_id,
            prepared,
            run.stores.registry,
            expected=None if champion is None else champion.version,
            action="force",
            evidence=[f"forced: {reason}"],
        )
    line = f"forced {version.name} v{version.version}: trial {record.label}"
    move = last_move(workspace.ledger, version.name, version.version)
    tell_of_move(config.notify, "promoted", config.name, line, move)
    return lines({"promoted": True, "version": version.version, "line": line}, line)


def rollback_model(model: str, reason: str, tracking_uri: str) -> Shown:
    """The previous champion becomes the champion again, after it has been loaded and verified.

    Args:
        model: a registered model, or an experiment file: then whom it names under ``notify`` is told. No other place
            keeps that, since a webhook's address is a secret.
    """
    config = load_experiment(Path(model)) if model.endswith((".yaml", ".yml")) else None
    if config is not None:
        model, tracking_uri = config.registered_model, config.tracking.uri
    _check_name(model)
    workspace = find_workspace()
    registry = open_registry(workspace, tracking_uri)
    with tempfile.TemporaryDirectory(prefix="automl-rollback-") as scratch:

        def verify(version: ModelVersion) -> None:
            load_version(registry, version, Path(scratch))

        version = rollback(registry, model, verify=verify, ledger=workspace.ledger, reason=reason)
    line = f"{model}: v{version.version} is the champion again"
    if config is not None:
        move = last_move(workspace.ledger, model, version.version)
        tell_of_move(config.notify, "rolled_back", config.name, line, move)
    return lines({"model": model, "version": version.version, "line": line}, line)


def show_models(model: str | None, tracking_uri: str) -> Shown:
    """Versions and aliases, newest first, and every move of the champion."""
    if model is not None:
        _check_name(model)
    workspace = find_workspace()
    if model is None and not workspace.has_store(tracking_uri):
        return lines({}, NONE_YET)
    registry = open_registry(workspace, tracking_uri)
    names = registry.names() if model is None else (model,)
    found = {name: registry.versions(name) for name in names}
    if model is not None and not found[model]:
        raise InputError(
            f"no registered model {model!r}", f"registered models: {', '.join(registry.names()) or 'none yet'}"
        )
    moves = {name: history(workspace.ledger, name) for name in names}
    value = {
        name: {"versions": [v.model_dump() for v in versions], "history": [m.model_dump() for m in moves[name]]}
        for name, versions in found.items()
    }

    def text(console: Console) -> None:
        if not found:
            console.print(NONE_YET)
        for name, versions in found.items():
            body = [
                [
                    f"v{v.version}",
                    ", ".join(v.aliases),
                    v.tags.get("automl.search", ""),
                    v.tags.get("automl.trial", ""),
                    _when(v.created),
                ]
                for v in versions
            ]
            console.print(name, style="bold", markup=False)
            console.print(table(["version", "alias", "search", "trial", "registered"], body))
            for move in moves[name]:
                console.print(f"  {_when(move.time)} {_move(move)}", markup=False)

    return Shown(value, text)


def _move(move: Move) -> str:
    before = "none" if move.before is None else f"v{move.before}"
    after = "none" if move.after is None else f"v{move.after}"
    return f"{move.action}: {before} -> {after} by {move.who}: {' | '.join(move.evidence)}"


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
