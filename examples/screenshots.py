"""Pictures of a search, by headless Chromium: in MLflow its trials, the parent run, a comparison of trials, a finalist,
Optuna's plots and the registered model; the report; and, after a scheduled run, what Prefect shows.

    automl run examples/digits.yaml
    automl ui                                            # and, elsewhere:
    python examples/screenshots.py digits examples/screenshots

    automl schedule examples/digits.yaml --cron "0 3 * * *"
    automl up                                            # and, elsewhere, run the deployment once
    python examples/screenshots.py digits examples/screenshots --of prefect
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from flows.search_flow import artifact_key

PATIENCE_S = 60.0
SETTLE_S = 5.0
"""Charts are drawn after the text is there."""

CLOSE_ASSISTANT = "document.querySelector('[data-component-id=\"mlflow.assistant.chat_panel.close\"]')?.click()"
"""MLflow 3.17 opens a panel beside every page until it is closed."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A page, the text that says it is complete, and how much of its height is shown."""

    name: str
    path: str
    wait_for: str
    height: int = 900


@dataclass(slots=True)
class Page:
    """A tab, spoken to in Chrome's DevTools protocol."""

    socket: ClientConnection
    n_sent: int = field(default=0)

    def call(self, method: str, **params: Any) -> Any:
        self.n_sent += 1
        self.socket.send(json.dumps({"id": self.n_sent, "method": method, "params": params}))
        while True:
            answer = json.loads(self.socket.recv(timeout=PATIENCE_S))
            if answer.get("id") == self.n_sent:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def value(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait_for(self, text: str) -> None:
        until = time.monotonic() + PATIENCE_S
        while text not in (self.value("document.body ? document.body.innerText : ''") or ""):
            if time.monotonic() > until:
                raise TimeoutError(f"{text!r} does not appear on {self.value('location.href')}")
            time.sleep(0.2)

    def take(self, url: str, shot: Shot, width: int) -> bytes:
        size = {"width": width, "height": shot.height, "deviceScaleFactor": 1}
        self.call("Emulation.setDeviceMetricsOverride", **size, mobile=False)
        self.call("Page.navigate", url=url + shot.path)
        self.wait_for(shot.wait_for)
        self.value(CLOSE_ASSISTANT)
        time.sleep(SETTLE_S)
        clip = {"x": 0, "y": 0, "width": width, "height": shot.height, "scale": 1}
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", clip=clip)["data"])


@contextlib.contextmanager
def browser(width: int) -> Iterator[Page]:
    """A page in a Chromium of our own, with a profile that is forgotten."""
    program = next(found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name)))
    with tempfile.TemporaryDirectory() as profile:
        process = subprocess.Popen(
            [
                program,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                f"--window-size={width},1000",
                "--remote-debugging-port=0",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stderr=subprocess.DEVNULL,
        )
        try:
            port_file, until = Path(profile) / "DevToolsActivePort", time.monotonic() + PATIENCE_S
            while not port_file.exists() or not port_file.read_text().strip():
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{program} did not start")
                time.sleep(0.1)
            port = port_file.read_text().split()[0]
            tabs = _json(f"http://127.0.0.1:{port}/json")
            address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            with connect(address, max_size=None) as socket:
                yield Page(socket)
        finally:
            process.terminate()
            process.wait()


def mlflow_shots(api: str, experiment: str) -> list[Shot]:
    """The pages of an experiment's last search."""
    named = urllib.parse.quote(experiment)
    number = _json(f"{api}/experiments/get-by-name?experiment_name={named}")["experiment"]["experiment_id"]

    def runs(role: str, order: str, *more: str) -> list[dict[str, Any]]:
        filters = " and ".join([f"tags.`automl.role` = '{role}'", *more])
        found = _json(
            f"{api}/runs/search",
            {"experiment_ids": [number], "filter": filters, "order_by": [order], "max_results": 8},
        )
        return list(found.get("runs", []))

    parent = runs("search", "attributes.start_time DESC")[0]
    tags = {tag["key"]: tag["value"] for tag in parent["data"]["tags"]}
    of_search = f"tags.`automl.search` = '{tags['automl.search']}'"
    best = runs("trial", "metrics.objective DESC", of_search, "tags.`automl.state` = 'COMPLETE'")
    finalist = runs("finalist", "attributes.start_time ASC", of_search)[0]
    compared = urllib.parse.quote(json.dumps([run["info"]["run_id"] for run in best]))
    numbers = urllib.parse.quote(json.dumps([number]))
    listed = urllib.parse.quote(f"{of_search} and tags.`automl.role` = 'trial'")
    at = f"/#/experiments/{number}/runs"
    return [
        Shot("trials", f"{at}?searchFilter={listed}&orderByKey=metrics.%60objective%60&orderByAsc=false", "#0"),
        Shot("parent", f"{at}/{parent['info']['run_id']}", "automl.result", 1300),
        Shot("comparison", f"/#/compare-runs?runs={compared}&experiments={numbers}", "Parallel Coordinates", 1000),
        Shot("finalist", f"{at}/{finalist['info']['run_id']}", "automl.role", 1300),
        Shot("plots", f"{at}/{parent['info']['run_id']}/artifacts/plots/plots.html", "plots.html", 1000),
        Shot("registry", f"/#/models/{named}", "champion"),
    ]


def prefect_shots(api: str, experiment: str) -> list[Shot]:
    """The pages of a deployment's last run that searched."""
    deployment = _json(f"{api}/deployments/name/automl/{urllib.parse.quote(experiment)}")
    runs = _json(
        f"{api}/flow_runs/filter",
        {
            "sort": "EXPECTED_START_TIME_DESC",
            "deployments": {"id": {"any_": [deployment["id"]]}},
            "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
        },
    )
    run = next((run for run in runs if {"promoted", "finished"} & set(run["tags"])), None)
    if run is None:
        raise SystemExit(f"error: {experiment} has no run that searched; run its deployment once")
    artifacts = _json(f"{api}/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
    name = artifact_key(experiment, "")
    ids = {artifact["key"]: artifact["id"] for artifact in artifacts if artifact["key"]}
    return [
        Shot("prefect-run", f"/runs/flow-run/{run['id']}", "report-"),
        Shot("prefect-deployment", f"/deployments/deployment/{deployment['id']}", run["name"]),
        Shot("prefect-summary", f"/artifacts/artifact/{ids[f'{name}-summary']}", "Finalists"),
    ]


def _json(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return json.loads(answer.read())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--of", choices=["mlflow", "prefect"], default="mlflow")
    parser.add_argument("--prefect", default="http://127.0.0.1:4200")
    parser.add_argument("--mlflow", default="http://127.0.0.1:5000")
    parser.add_argument("--width", type=int, default=1400)
    parser.add_argument("--only", nargs="*", help="names of pictures")
    arguments = parser.parse_args()
    if arguments.of == "mlflow":
        address = arguments.mlflow
        found = mlflow_shots(f"{address}/api/2.0/mlflow", arguments.experiment)
    else:
        address = arguments.prefect
        found = prefect_shots(f"{address}/api", arguments.experiment)
    with browser(arguments.width) as page:
        for shot in found:
            if shot.name not in (arguments.only or [shot.name]):
                continue
            target = arguments.folder / f"{shot.name}.png"
            target.write_bytes(page.take(address, shot, arguments.width))
            print(target)


if __name__ == "__main__":
    main()
