"""``automl export --int8``: beside the ONNX file one with weights in eight bits, where the gates take it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict
from rich.console import Console

from flows.commands.export import Origin, Staged, check_onnx_output, find_origin, find_trained, stage_onnx
from flows.commands.models import check_writable, find_version, open_registry
from flows.commands.shown import Shown
from flows.stages.evaluate import load_champion, read_evaluation, resampling
from flows.workspace import Workspace, find_workspace
from pipeline.data.dataset import take
from pipeline.errors import GateError, InputError
from pipeline.evaluation.champion import Champion
from pipeline.evaluation.turns import N_BATCH, SINGLE, Speed, time_in_turn
from pipeline.evaluation.variant import VariantReading, read_variant
from pipeline.files import sha256_file
from pipeline.objective import METRICS, objective_for
from pipeline.packaging.int8 import Quantised, quantise
from pipeline.packaging.onnx_export import standalone_inputs
from pipeline.packaging.onnx_model import OnnxModel, open_onnx
from pipeline.packaging.package import library_versions
from pipeline.registry.base import ModelRegistry, ModelVersion

PAYS: Final = 0.1
"""By so much a file must be faster or smaller before it is said to be: less is noise on a busy machine."""


class Form(BaseModel):
    """One of the two files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    sha256: str
    n_bytes: int
    speed: Speed
    """Of the file alone: its tensors in, its answers out."""


class Int8Record(BaseModel):
    """``NAME.int8.json``: what the variant is, and why it may serve."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    model: str
    version: int
    search: str
    trial: int
    family: str
    method: str
    n_calibration: int
    """Training rows that gave activations their ranges; 0 for dynamic."""
    share: float
    """Of the parameters, those in eight bits."""
    original: Form
    variant: Form
    reading: VariantReading
    versions: dict[str, str]


def export_int8(model: str, rows: str, output: Path, tracking_uri: str) -> tuple[Shown, GateError | None]:
    """Write ``X.onnx``, ``X.int8.onnx`` and ``X.int8.json``, or where a gate refuses the variant none of them: a file
    that is there may be served, and files of two exports must not lie side by side.

    Returns:
        The comparison, and what the command ends with where the variant is refused.

    Raises:
        InputError: no such model or rows, its search or data is not here any more, the ONNX libraries are not
            installed, or the model is of a kind that is not exported.
        PackageError: the float file and the model differ.
    """
    check_onnx_output(output)
    paths = (output, output.with_suffix(".int8.onnx"), output.with_suffix(".int8.json"))
    for path in paths:
        check_writable(path)
    workspace = find_workspace()
    registry = open_registry(workspace, tracking_uri)
    version = find_version(registry, model)
    origin = find_trained(workspace, *find_origin(workspace, version))
    with tempfile.TemporaryDirectory(prefix="automl-export-") as scratch:
        staged = stage_onnx(registry, version, rows, Path(scratch))
        small = Path(scratch) / "model.int8.onnx"
        made = quantise(staged.predictor, staged.path, small, origin.prepared.development().train.inputs)
        original, variant = (open_onnx(staged.predictor, path) for path in (staged.path, small))
        speeds = _speeds(original, variant, staged)
        reading = _read(origin, original, variant, version, registry, workspace, Path(scratch))
        forms = [
            Form(file=path.name, sha256=sha256_file(form.path), n_bytes=form.path.stat().st_size, speed=speed)
            for path, form, speed in zip(paths, (original, variant), speeds, strict=False)
        ]
        said = _record(version, origin, made, forms, reading)
        contents = (staged.path.read_bytes(), small.read_bytes(), said.model_dump_json(indent=1).encode())
    if not reading.refused:
        output.parent.mkdir(parents=True, exist_ok=True)
        for path, content in zip(paths, contents, strict=True):  # the record last: it vouches for the others
            path.write_bytes(content)
    value = staged.value(version, output) | {"int8": said.model_dump(), "refused": [g.gate for g in reading.refused]}
    shown = Shown(value, lambda console: _show(console, said, staged.line(version, output)))
    return shown, _refusal(reading, version, output)


def _speeds(original: OnnxModel, variant: OnnxModel, staged: Staged) -> tuple[Speed, Speed]:
    """Of both files on the rows that were given for the check."""
    rows, n = staged.features, len(staged.features)
    singles = [standalone_inputs(staged.predictor, take(rows, np.array([at]))) for at in range(min(n, SINGLE[0]))]
    batch = standalone_inputs(staged.predictor, take(rows, np.arange(N_BATCH) % n))
    speeds = time_in_turn({"float": original.answers, "int8": variant.answers}, singles, batch)
    return speeds["float"], speeds["int8"]


def _read(
    origin: Origin,
    original: OnnxModel,
    variant: OnnxModel,
    version: ModelVersion,
    registry: ModelRegistry,
    workspace: Workspace,
    scratch: Path,
) -> VariantReading:
    """The sealed test's word on both, and the gates of the experiment as it was searched."""
    config, prepared = origin.config, origin.prepared
    return read_variant(
        origin.record,
        variant,
        original,
        version.version,
        prepared.sealed,
        objective_for(config.search.metric, prepared.spec.task),
        config.promotion.gates,
        former=_former(origin, version, registry, workspace, scratch),
        trained_on=prepared.known_rows(),
        slicing=prepared.slicing(),
        how=resampling(config),
        reason=f"int8 variant of {version.name} v{version.version}",
        ledger=workspace.sealed_readings,
        n_bytes=variant.path.stat().st_size,
    )


def _former(
    origin: Origin, version: ModelVersion, registry: ModelRegistry, workspace: Workspace, scratch: Path
) -> Champion | None:
    """The champion that the search's winner was compared with; None where there was none.

    Raises:
        InputError: it is not registered any more.
    """
    evaluation = read_evaluation(workspace.search(origin.state.id))
    number = None if evaluation is None else evaluation.champion
    if number is None or number == version.version:
        return None
    found = next((v for v in registry.versions(version.name) if v.version == number), None)
    if found is None:
        raise InputError(
            f"v{number}, the champion that v{version.version} had to beat, is not registered any more",
            "export without --int8",
        )
    return load_champion(found, registry, workspace, scratch)


def _record(
    version: ModelVersion, origin: Origin, made: Quantised, forms: list[Form], reading: VariantReading
) -> Int8Record:
    import onnxruntime

    return Int8Record(
        model=version.name,
        version=version.version,
        search=origin.state.id,
        trial=origin.record.number,
        family=origin.record.family,
        method=made.method,
        n_calibration=made.n_calibration,
        share=made.share,
        original=forms[0],
        variant=forms[1],
        reading=reading,
        versions=library_versions() | {"onnxruntime": onnxruntime.__version__},
    )


def _refusal(reading: VariantReading, version: ModelVersion, output: Path) -> GateError | None:
    if not reading.refused:
        return None
    first = reading.refused[0]
    return GateError(
        f"int8 variant of {version.name} v{version.version}: {first.gate} not passed ({first.evidence}); nothing is "
        f"written; without --int8 {output.name} would be"
    )


def _show(console: Console, said: Int8Record, line: str) -> None:
    reading, before, after = said.reading, said.original, said.variant
    calibrated = f", calibrated on {said.n_calibration} training rows" if said.n_calibration else ""
    if not reading.refused:
        console.print(line, markup=False)
    console.print(
        f"int8 ({said.method}{calibrated}): {said.share:.0%} of the parameters in 8 bits; scores on {reading.n_rows:,} "
        "sealed rows; ONNX Runtime, one thread",
        markup=False,
    )
    measured = (
        ("ms a row, p50", before.speed.latency_ms_p50, after.speed.latency_ms_p50, ".3f"),
        ("ms a row, p95", before.speed.latency_ms_p95, after.speed.latency_ms_p95, ".3f"),
        ("rows a second", before.speed.rows_per_s, after.speed.rows_per_s, ",.0f"),
        ("bytes", before.n_bytes, after.n_bytes, ",d"),
    )
    rows = [
        *(_scored(reading, name) for name in reading.original),
        *([name, f"{a:{style}}", f"{b:{style}}", f"ratio {b / a:.2f}"] for name, a, b, style in measured),
    ]
    for text in columns([["", "float", "int8", "int8 better by"], *rows]):
        console.print(text, markup=False)
    for gate in reading.gates:
        console.print(f"{'passed' if gate.passed else 'FAILED'}: {gate.gate} ({gate.evidence})", markup=False)
    console.print(verdict(before, after), markup=False)


def columns(rows: list[list[str]]) -> list[str]:
    """Cells one under the other, whole on any terminal: a number that is cut off says something else."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _scored(reading: VariantReading, name: str) -> list[str]:
    """A row of the table: with intervals, the difference's paired, for the search's metric."""
    before, after = reading.original[name], reading.variant.get(name)
    if after is None:
        return [name, f"{before.value:.4f}", "undefined", ""]
    if name == reading.metric and reading.difference is not None:
        d = reading.difference.difference
        return [name, str(before), str(after), f"{d.value:+.4f} [{d.low:+.4f}, {d.high:+.4f}]"]
    sign = 1 if METRICS[name].direction == "maximize" else -1
    return [name, f"{before.value:.4f}", f"{after.value:.4f}", f"{sign * (after.value - before.value):+.4f}"]


def verdict(original: Form, variant: Form) -> str:
    """Whether the variant pays on this machine, in a line."""
    ratios = {
        "for one row": original.speed.latency_ms_p50 / variant.speed.latency_ms_p50,
        "in batches": variant.speed.rows_per_s / original.speed.rows_per_s,
    }
    size = variant.n_bytes / original.n_bytes
    faster, slower = (any(sign * (r - 1) > PAYS for r in ratios.values()) for sign in (1, -1))
    if faster:
        word = "pays in part" if slower else "pays"
    else:
        word = "pays in bytes only" if size < 1 - PAYS else "does not pay"
    said = [*(f"{_faster(ratio)} {where}" for where, ratio in ratios.items()), f"{size:.2f} of the bytes"]
    return f"int8 {word} here: {', '.join(said)}"


def _faster(ratio: float) -> str:
    if abs(ratio - 1) <= PAYS:
        return "as fast"
    return f"x{ratio:.1f} as fast" if ratio > 1 else f"slower (x{1 / ratio:.1f} the time)"
