"""The command line. Imports are inside the commands: ``automl --help`` must not wait for torch, MLflow or Prefect."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="automl",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ExperimentFile = Annotated[Path, typer.Argument(metavar="EXPERIMENT.yaml", help="The experiment file.")]
ExperimentName = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="An experiment's name or file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a value of the file; may be repeated.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
SearchId = Annotated[str | None, typer.Option("--search", metavar="ID", help="Another search than the latest.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        names = ("automl-pipeline", "torch", "optuna", "mlflow", "prefect")
        print(", ".join(f"{name} {version(name)}" for name in names))
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print this version and its libraries'.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Search, compare and promote MLP, CNN and LSTM models: one file, one command."""


@app.command()
def init(
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="A file, a folder, sklearn:NAME or openml:NUMBER."),
    ],
    target: Annotated[str | None, typer.Option(metavar="COL", help="The column to predict.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")] = Path("experiment.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    kind: Annotated[str | None, typer.Option(help="What the data is, as forecast, where a look would not say.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look at data and write a commented experiment file for it."""
    from flows.commands.init import init_experiment

    _print(init_experiment(data, target, output, force=force, kind=kind), as_json)


@app.command()
def check(file: ExperimentFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Validate the file and its data; say what would be trained. Creates nothing."""
    from flows.commands.check import check_experiment

    _print(check_experiment(file, tuple(overrides or ())), as_json)


@app.command()
def run(
    file: ExperimentFile,
    overrides: Overrides = None,
    trials: Annotated[int | None, typer.Option(help="Total trials: search.budget.trials.")] = None,
    timeout: Annotated[str | None, typer.Option(help="Total time, as 10m: search.budget.time.")] = None,
    new: Annotated[bool, typer.Option("--new", help="Start a new search, whatever there is.")] = False,
    prefect: Annotated[bool, typer.Option("--prefect/--no-prefect", help="Run as a Prefect flow.")] = True,
    as_json: AsJson = False,
) -> None:
    """Prepare, search, evaluate, register and promote. An unfinished search is gone on with; budgets are totals."""
    from pipeline.search.forks import prestart

    prestart()  # torch loads there while it loads here
    from flows.commands.run import run_experiment

    extra = [*(overrides or [])]
    extra += [f"search.budget.trials={trials}"] if trials is not None else []
    extra += [f"search.budget.time={timeout}"] if timeout is not None else []
    _print(run_experiment(file, tuple(extra), new=new, prefect=prefect, quiet=as_json), as_json)


@app.command()
def leaderboard(
    experiment: ExperimentName,
    search: SearchId = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    limit: Annotated[int | None, typer.Option(help="Only so many rows.")] = None,
    pareto: Annotated[bool, typer.Option("--pareto", help="Only trials unbeaten in score and parameters.")] = False,
) -> None:
    """Trials in rank order with family, score, size and time."""
    from flows.commands.show import show_leaderboard

    _print(show_leaderboard(experiment, search, limit, as_csv, pareto), as_json)


@app.command()
def report(
    experiment: ExperimentName,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="HTML file; the search's folder by default.")
    ] = None,
    search: SearchId = None,
    as_json: AsJson = False,
) -> None:
    """One self-contained HTML page on a search. The answer first, then what it rests on; running ones, too."""
    from flows.commands.report import make_report

    _print(make_report(experiment, output, search), as_json)


@app.command()
def trial(experiment: ExperimentName, number: int, search: SearchId = None, as_json: AsJson = False) -> None:
    """One trial: parameters, curve, files, and why it failed."""
    from flows.commands.show import show_trial

    _print(show_trial(experiment, number, search), as_json)


@app.command()
def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL[@ALIAS]", help="A registered model; the alias is champion.")],
    source: Annotated[str, typer.Argument(metavar="INPUT", help="Raw rows, images or sequences; a target is ignored.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="CSV or parquet file to write.")],
    tracking_uri: Annotated[str, typer.Option(help="Where the registry is.")] = "sqlite:///mlruns/mlflow.db",
    as_json: AsJson = False,
) -> None:
    """Predict raw rows in their order. Columns are `prediction`, and for classes `probability_<label>`."""
    from flows.commands.models import predict_source

    _print(predict_source(model, source, output, tracking_uri), as_json)


@app.command()
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL[@ALIAS]", help="A registered model; the alias is champion.")],
    rows: Annotated[
        str | None, typer.Option("--check", metavar="INPUT", help="Raw rows on which ONNX file and model must agree.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="ONNX file to write.")] = None,
    script: Annotated[
        Path | None, typer.Option(metavar="FILE.py", help="Script to write that trains it again.")
    ] = None,
    trial: Annotated[int | None, typer.Option(help="With --script: a trial of the latest search.")] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Beside the ONNX file one with 8-bit weights, if the gates take it.")
    ] = False,
    tracking_uri: Annotated[str, typer.Option(help="Where the registry is.")] = "sqlite:///mlruns/mlflow.db",
    as_json: AsJson = False,
) -> None:
    """Write a model as one ONNX file, preprocessing inside, or as a script that trains it again without automl."""
    from flows.commands.export import export_model, export_script
    from pipeline.errors import InputError

    if script is not None and rows is None and output is None and not int8:
        _print(export_script(model, trial, script, tracking_uri), as_json)
    elif script is None and trial is None and rows is not None and output is not None:
        if not int8:
            _print(export_model(model, rows, output, tracking_uri), as_json)
            return
        from flows.commands.quantise import export_int8

        compared, refusal = export_int8(model, rows, output, tracking_uri)
        _print(compared, as_json)
        if refusal is not None:
            raise refusal
    else:
        raise InputError(
            "export writes one thing", "give --check INPUT -o FILE.onnx [--int8], or --script FILE.py [--trial N]"
        )


@app.command()
def promote(
    file: ExperimentFile,
    trial: Annotated[int | None, typer.Option(help="Another trial than the winner.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Whatever the gates say; needs --reason.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why, for the ledger.")] = None,
    search: SearchId = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Judge the latest winner again, or force a trial."""
    from flows.commands.models import promote_trial

    _print(promote_trial(file, tuple(overrides or ()), search, trial, force, reason), as_json)


@app.command()
def rollback(
    model: Annotated[str, typer.Argument(help="A registered model, or an experiment file that says who is told.")],
    reason: Annotated[str, typer.Option(help="Why, for the ledger.")] = "rollback",
    tracking_uri: Annotated[str, typer.Option(help="Where the registry is.")] = "sqlite:///mlruns/mlflow.db",
    as_json: AsJson = False,
) -> None:
    """Make the previous champion the champion again."""
    from flows.commands.models import rollback_model

    _print(rollback_model(model, reason, tracking_uri), as_json)


@app.command()
def models(
    model: Annotated[str | None, typer.Argument(help="Only this registered model.")] = None,
    tracking_uri: Annotated[str, typer.Option(help="Where the registry is.")] = "sqlite:///mlruns/mlflow.db",
    as_json: AsJson = False,
) -> None:
    """Registered models: versions, aliases, past champions."""
    from flows.commands.models import show_models

    _print(show_models(model, tracking_uri), as_json)


@app.command()
def schedule(
    experiment: Annotated[
        str | None, typer.Argument(metavar="EXPERIMENT.yaml", help="The file; a name is enough to change a schedule.")
    ] = None,
    cron: Annotated[str | None, typer.Option(help='Five fields, as "0 3 * * *"; else the file\'s schedule.')] = None,
    timezone: Annotated[str | None, typer.Option(help="Of the cron's clock, as Europe/Berlin.")] = None,
    interval: Annotated[str | None, typer.Option(help="Time between two starts, as 1h.")] = None,
    show: Annotated[bool, typer.Option("--list", help="What is scheduled, next and last run.")] = False,
    pause: Annotated[bool, typer.Option("--pause", help="Keep the schedule, start nothing.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Undo --pause.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Forget the schedule.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run an experiment again and again; `automl serve` does it. New data: a search, and only a better champion."""
    from pipeline.errors import InputError

    wanted = [name for name, on in (("list", show), ("pause", pause), ("resume", resume), ("remove", remove)) if on]
    given = [value for value in (cron, timezone, interval) if value is not None]
    if len(wanted) + bool(given) > 1:
        raise InputError("--list, --pause, --resume, --remove and a schedule exclude each other", "use one of them")
    if experiment is None and wanted != ["list"]:
        raise InputError("schedule needs an experiment file", "or --list")
    from flows.commands.schedule import change_schedule, list_schedules, schedule_experiment

    if wanted == ["list"]:
        _print(list_schedules(), as_json)
    elif wanted:
        _print(change_schedule(str(experiment), wanted[0]), as_json)  # type: ignore[arg-type]
    else:
        _print(schedule_experiment(Path(str(experiment)), cron, interval, timezone), as_json)


@app.command()
def serve(
    port: Annotated[int, typer.Option(help="Port of Prefect's server on 127.0.0.1.")] = 4200,
    limit: Annotated[int, typer.Option(min=1, help="Most runs at a time, those that only skip included.")] = 4,
) -> None:
    """Run what is scheduled on this machine until Ctrl-C."""
    from flows.commands.serve import serve

    raise typer.Exit(serve(port, limit))


@app.command()
def up(
    port: Annotated[int, typer.Option(help="Port of Prefect's server on 127.0.0.1.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="Port of MLflow's server on 127.0.0.1.")] = 5000,
    limit: Annotated[int, typer.Option(min=1, help="Most runs at a time, those that only skip included.")] = 4,
    tracking_uri: Annotated[str, typer.Option(help="The tracking store.")] = "sqlite:///mlruns/mlflow.db",
) -> None:
    """As serve, with MLflow's UI, until Ctrl-C."""
    from flows.commands.up import bring_up

    raise typer.Exit(bring_up(port, mlflow_port, limit, tracking_uri))


@app.command()
def stop(experiment: ExperimentName, as_json: AsJson = False) -> None:
    """Stop a running experiment; its next run goes on with it."""
    from flows.commands.stop import stop_experiment

    _print(stop_experiment(experiment), as_json)


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port.")] = 5000,
    host: Annotated[str, typer.Option(help="A loopback address: the server has no authentication.")] = "127.0.0.1",
    tracking_uri: Annotated[str, typer.Option(help="The tracking store.")] = "sqlite:///mlruns/mlflow.db",
) -> None:
    """Serve MLflow's UI on loopback until Ctrl-C."""
    from flows.commands.ui import serve_ui

    raise typer.Exit(serve_ui(port, host, tracking_uri))


@app.command()
def sync(
    experiment: Annotated[str | None, typer.Argument(metavar="[EXPERIMENT]", help="Only this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say again what a store missed. Trials on record that Optuna or MLflow lack, runs without an owner, doubles."""
    from flows.commands.sync import sync_searches

    _print(sync_searches(experiment), as_json)


@app.command()
def gc(
    experiment: Annotated[str | None, typer.Argument(metavar="[EXPERIMENT]", help="Only this one.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    older_than: Annotated[
        str | None, typer.Option(metavar="30d", help="Also whole searches that ended so long ago.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove what nobody needs any more. Never an unfinished search, never what champion or previous are made of."""
    from flows.commands.collect import collect

    _print(collect(experiment, older_than, dry_run=dry_run), as_json)


@app.command()
def doctor(
    tracking_uri: Annotated[str, typer.Option(help="The tracking store.")] = "sqlite:///mlruns/mlflow.db",
    fix: Annotated[bool, typer.Option("--fix", help="Apply the remedies that cannot do harm.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check versions, devices, stores, locks, champions. Every finding has a remedy."""
    from flows.commands.doctor import examine

    examination = examine(tracking_uri, fix=fix)
    _print(examination, as_json)
    raise typer.Exit(1 if examination.value["problems"] else 0)


def _print(shown: Any, as_json: bool) -> None:
    """`shown` is a `flows.commands.shown.Shown`."""
    from pipeline.redaction import redacted

    if as_json:
        print(redacted(json.dumps(shown.value, indent=1, default=str)))
    else:
        shown.text(_console())


def _console() -> Console:
    from rich.console import Console

    return Console(soft_wrap=not sys.stdout.isatty(), highlight=False)


def main() -> None:
    """Entry point: errors that we raise on purpose are one line on stderr and their exit code."""
    from pipeline.errors import AutoMLError, Interrupted
    from pipeline.files import FULL
    from pipeline.interpreter import collect_rarely
    from pipeline.redaction import redact_logs, redact_tracebacks

    collect_rarely()
    redact_logs()
    redact_tracebacks()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # LANG=C has no letter for every name
    try:
        app(standalone_mode=True)
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.exit_code)
    except AutoMLError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in FULL:
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(f"error: {error.strerror}{where}; free some space, and the same command goes on", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
