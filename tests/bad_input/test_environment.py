"""69 to 84: names, addresses, and the environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.bad_input.cases import CANARY, GOOD, REPOSITORY, TABLE, Case, Content, User, elsewhere, table
from tests.patience import PATIENCE_S

REFUSED_BY_MLFLOW = ("../../etc", "a/b", "a:b", "models:/x", ".", "..", "")
TAKEN_BY_MLFLOW = (
    "%2e%2e", "'; DROP TABLE x--", "<img src=x onerror=alert(1)>", "=cmd|calc", "a" * 300, "latest", "a\u202eb", "a\nb",
    "a\0b", "a b", "é", "a'b", "`a`",
)  # fmt: skip
RULE = "name must match ^[A-Za-z0-9]"


def called(name: str) -> dict[str, Content]:
    """The good experiment under another name."""
    return {"bad.yaml": f"name: {json.dumps(name)}\n" + GOOD.split("\n", 1)[1]}


def registered(name: str) -> dict[str, Content]:
    return {"bad.yaml": GOOD + f"promotion: {{model: {json.dumps(name)}}}\n"}


def stored(uri: str) -> dict[str, Content]:
    return {"bad.yaml": GOOD + f"tracking: {{uri: {json.dumps(uri)}}}\n"}


def models(uri: str) -> tuple[str, ...]:
    return ("models", "--tracking-uri", uri)


DEAD = "http://127.0.0.1:9"

CASES = (
    *(Case(69, f"an experiment called {name!r}", RULE, called(name)) for name in REFUSED_BY_MLFLOW),
    *(Case(69, f"a model called {name!r}", RULE, registered(name)) for name in REFUSED_BY_MLFLOW),
    *(Case(70, f"an experiment called {name[:30]!r}", RULE, called(name)) for name in TAKEN_BY_MLFLOW),
    *(Case(70, f"a model called {name[:30]!r}", RULE, registered(name)) for name in TAKEN_BY_MLFLOW),
    *(Case(70, f"models {name[:30]!r}", RULE, command=("models", name)) for name in ("../x", *TAKEN_BY_MLFLOW)),
    *(Case(70, f"rollback {name[:30]!r}", RULE, command=("rollback", name)) for name in ("../x", "' or 1=1")),
    *(Case(71, f"the alias {alias!r}", "must be NAME, NAME@ALIAS or NAME/VERSION", command=("predict", f"bad{alias}", "train.csv", "-o", "o.csv"))
      for alias in ("@latest", "@../x", "@a b", "/latest", "/-1", "/1.0")),
    *(Case(72, f"a search called {name[:30]!r}", "no search", command=("leaderboard", "bad", "--search", name))
      for name in ("../../etc", "' or 1=1", "a" * 5000, "a\nb", "a\0b", "/?#%")),
    *(Case(73, f"the leaderboard of {name[:30]!r}", "no search", command=("leaderboard", name))
      for name in ("../../etc", "' or 1=1", "a" * 5000, "a\nb", "a\0b", "/?#%", "")),
    elsewhere(74, "values of more than 6,000 characters", "tests/tracking/test_tracker_contract.py::test_long_values_are_cut_with_a_note_of_it"),
    elsewhere(75, "HTML in notes and summaries", "tests/bad_input/test_reports.py::test_75_markup_is_inert_in_what_we_write"),
    Case(76, "HTML and SVG artifacts", skip="MLflow serves them as attachments; we only write csv, json, md, txt and yaml"),
    *(Case(77, f"the store {uri!r}", "`tracking.uri` must", stored(uri))
      for uri in ("file:///etc", "ftp://example.org", "mlruns", "", "databricks", "javascript:alert(1)", "sqlite:///", "sqlite://",
                  "sqlite:///:memory:", "sqlite:///a.db?mode=ro", "sqlite:///folder/", "mysql://h/db", "http:/x")),
    Case(77, "MLFLOW_TRACKING_URI", "no registered models yet", command=("models",), outcome="accepted",
         environment={"MLFLOW_TRACKING_URI": "http://192.0.2.1/"}),
    Case(77, "a store that is no database", "it is not an SQLite database", {"mlruns/mlflow.db": "not a database, but long enough to be one"},
         command=models("sqlite:///mlruns/mlflow.db"), code=1),
    Case(78, "a password in an address of no known kind", "'ftp'", stored(f"ftp://user:{CANARY}@example.org")),
    Case(78, "a password in the address of a server that is away", "MLflow could not", command=models(f"http://user:{CANARY}@127.0.0.1:9"), code=1),
    Case(78, "a password in a database's address", "MLflow could not open postgresql://127.0.0.1:9/db", command=models(f"postgresql://user:{CANARY}@127.0.0.1:9/db"), code=1),
    Case(78, "a password in the source's address", "***@example.org", {"bad.yaml": f"name: bad\ndata: {{source: 'https://user:{CANARY}@example.org/x.csv'}}\n"}),
    Case(78, "a token in the source's path", "no such file", {"bad.yaml": "name: bad\ndata: {source: '${MY_TOKEN}/x.csv'}\n"}, environment={"MY_TOKEN": CANARY}),
    Case(78, "a password where no key is", "unknown key", {"bad.yaml": GOOD + f"password=: {CANARY}\n"}),
    elsewhere(79, "unpickling is off", "tests/tracking/test_environment.py::test_unpickling_is_off_whatever_the_user_has_set_and_what_else_he_has_set_stays"),
    Case(80, "a server that is away", "MLflow could not", command=models(DEAD), code=1),
    Case(80, "a proxy that is away", "MLflow could not", command=models("http://192.0.2.1"), code=1, environment={"HTTP_PROXY": DEAD, "http_proxy": DEAD, "no_proxy": "", "NO_PROXY": ""}),
    Case(80, "a proxy that is none", "MLflow could not", command=models("http://192.0.2.1"), code=1, environment={"HTTP_PROXY": "::", "http_proxy": "::", "no_proxy": "", "NO_PROXY": ""}),
    Case(80, "a certificate file that is not there", "MLflow could not", command=models("https://127.0.0.1:9"), code=1, environment={"REQUESTS_CA_BUNDLE": "/gone.pem"}),
    *(Case(81, f"CUDA_VISIBLE_DEVICES={value}", "CUDA_VISIBLE_DEVICES must list GPUs", environment={"CUDA_VISIBLE_DEVICES": value}) for value in ("abc", "0;1", "all", "0,,1")),
    *(Case(81, f"CUDA_VISIBLE_DEVICES={value!r}", "mlp ", outcome="accepted", environment={"CUDA_VISIBLE_DEVICES": value}) for value in ("", "-1", "0,1", "GPU-1b2c")),
    elsewhere(82, "cron lines", "tests/flows/test_ticks.py::test_others_are_refused_with_the_place_and_a_remedy"),
    Case(82, "an unknown time zone", "did you mean Europe/Berlin?", {"bad.yaml": GOOD + 'schedule: {cron: "0 3 * * *", timezone: Europe/Berln}\n'}),
    Case(82, "two schedules", "either cron or interval", {"bad.yaml": GOOD + 'schedule: {cron: "0 3 * * *", interval: 1h}\n'}),
    elsewhere(83, "LANG=C", "tests/bad_input/test_environment.py::test_83_84_a_bare_environment"),
    Case(84, "no HOME", "mlp ", outcome="accepted", environment={"HOME": None}),
    Case(84, "a HOME that cannot be written", "mlp ", outcome="accepted", environment={"HOME": "/proc"}),
    *(Case(77, f"the UI on {host}", "--host must be a loopback address", command=("ui", "--host", host)) for host in ("0.0.0.0", "::", "192.0.2.1", "example.org", "")),
)  # fmt: skip


@table(CASES)
def test_environment(user: User, case: Case) -> None:
    user.meets(case)


def test_83_84_a_bare_environment(tmp_path: Path) -> None:
    """ASCII only, no home, nothing set: names that cannot be written are written as escapes."""
    (tmp_path / "train.csv").write_text(TABLE.replace("colour", "цвет"), encoding="utf-8")
    (tmp_path / "bad.yaml").write_text(GOOD)
    bare = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY),
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "check", "bad.yaml"], cwd=tmp_path, env=bare, capture_output=True, timeout=PATIENCE_S, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"\\u0446\\u0432\\u0435\\u0442: categorical" in done.stdout
