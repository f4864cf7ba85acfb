"""``automl export``: a registered model as one ONNX file."""

from __future__ import annotations

import tempfile
from pathlib import Path

from flows.commands.models import find_version, open_registry
from flows.commands.shown import Shown, lines
from flows.workspace import find_workspace
from pipeline.data.source import read_features
from pipeline.errors import InputError
from pipeline.registry.loading import load_version
from pipeline.text import shown

N_EXAMPLE = 4


def export_model(model: str, rows: str, output: Path, tracking_uri: str) -> Shown:
    """Write the file, and compare it with the model on every row of `rows`; it appears where the two agree.

    Raises:
        InputError: no such model or rows, or the ONNX libraries are not installed.
        PackageError: the file and the model differ.
    """
    if output.suffix != ".onnx" or output.is_dir():
        raise InputError(f"the output must be an .onnx file, but got {shown(output.name)}", "rename it")
    workspace = find_workspace()
    registry = open_registry(workspace, tracking_uri)
    version = find_version(registry, model)
    from pipeline.packaging.onnx_export import check_parity, export_onnx

    with tempfile.TemporaryDirectory(prefix="automl-export-") as scratch:
        predictor = load_version(registry, version, Path(scratch))
        features = read_features(rows, predictor.spec.kind)
        staged = Path(scratch) / "model.onnx"
        metadata = export_onnx(predictor, features[:N_EXAMPLE], staged)
        difference = check_parity(predictor, features, staged)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(staged.read_bytes())
    outside = metadata["automl.outside"]
    value = {
        "model": version.name,
        "version": version.version,
        "output": str(output),
        "rows": len(features),
        "largest_difference": difference,
        "outside": outside,
    }
    return lines(
        value,
        f"{version.name} v{version.version}: {output}, differs by at most {difference:.1g} on {len(features)} rows; "
        f"left to the caller: {outside}",
    )
