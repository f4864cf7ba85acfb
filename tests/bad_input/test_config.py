"""1 to 17: the experiment file."""

from __future__ import annotations

import os
from pathlib import Path

from tests.bad_input.cases import GOOD, Case, User, elsewhere, experiment, not_a_feature, table

LEVELS = "\n".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 10))
MISSING = ("check", "missing.yaml")


def file(content: str | bytes) -> dict[str, object]:
    return {"bad.yaml": content}


CASES = (
    Case(1, "a bomb of aliases", ":1: anchors and aliases are not allowed", file(f"l0: &l0 [a]\n{LEVELS}\n")),
    Case(2, "an alias of itself", ":1: anchors and aliases are not allowed", file("a: &a [*a]\n")),
    Case(3, "a Python object", ":3: ", file(GOOD + "x: !!python/object/apply:os.system [ls]\n")),
    Case(3, "a Python name for a value", ":3: ", experiment("train: {max_epochs: !!python/name:os.system }\n")),
    Case(4, "a key twice", ":3: duplicate key `name`", file(GOOD + "name: other\n")),
    Case(4, "a nested key twice", ":4: duplicate key `seed`", experiment("search: {seed: 1,\n  seed: 2}\n")),
    Case(5, "1e-3", "mlp ", experiment("search: {space: {optimizer.lr: 1e-3}}\n"), "accepted"),
    Case(5, "a quoted number", "must be a number", experiment("search: {space: {optimizer.lr: '1e-3'}}\n")),
    Case(6, "no for a name", ":1: 'no' would be read as true or false", file("name: no\n")),
    Case(6, "off for a sampler", ":3: 'off' would be read", experiment("search: {sampler: off}\n")),
    Case(7, "an octal number", ":3: '010' is not a plain decimal", experiment("search: {seed: 010}\n")),
    Case(7, "a sexagesimal number", "'12:30:45' is not a plain decimal", experiment("search: {seed: 12:30:45}\n")),
    Case(7, "a date", "timestamp", experiment("search: {seed: 2026-01-01}\n")),
    Case(7, "an underscore", "'1_000' is not a plain decimal", experiment("search: {seed: 1_000}\n")),
    Case(8, "50,000 brackets", ":3: nesting must be <= 64", file(GOOD + "x: " + "[" * 50_000)),
    Case(8, "50,000 values", "unknown key `x`", file(GOOD + "x: [" + "1, " * 50_000 + "1]\n")),
    Case(9, "NaN in JSON", "`search.budget.time`", file('{"name": "b", "data": {"source": "train.csv", "target": "y"},'
                                                       ' "search": {"budget": {"time": NaN}}}')),
    Case(9, "an infinity", "numbers must be finite", experiment("search: {budget: {time: .inf}}\n")),
    Case(9, "an infinity as a number with an exponent", "finite", experiment("search: {space: {optimizer.lr: 1e999}}\n")),
    Case(10, "200,000 objects in JSON", ":1: nesting must be <= 64", file('{"a":' * 200_000)),
    Case(10, "an integer of 5,000 digits", "is not a plain decimal", experiment(f"search: {{seed: {'9' * 5000}}}\n")),
    Case(11, "a misspelled key", ":3: unknown key `search.budget.n_trails`; ", experiment("search: {budget: {n_trails: 5}}\n")),
    Case(11, "a key of 100,000 letters", "unknown key", file(GOOD + f"? {'k' * 100_000}\n: 1\n")),
    Case(11, "a value of 100,000 letters", "`search.sampler`", experiment(f"search: {{sampler: {'k' * 100_000}}}\n")),
    Case(11, "a key with a line break and an escape", "unknown key", file(GOOD + '"a\\n\\e[31m": 1\n')),
    Case(12, "no file", "no such experiment file; ", command=MISSING),
    Case(12, "an empty file", "is empty", file("")),
    Case(12, "a folder", "must be a regular file", {"bad.yaml": Path.mkdir}),
    Case(12, "a named pipe", "must be a regular file", {"bad.yaml": os.mkfifo}),
    Case(12, "an endless device", "must be a regular file", command=("check", "/dev/zero")),
    Case(12, "a terminal", "must be a regular file", command=("check", "/dev/tty")),
    Case(12, "a link to nothing", "no such experiment file", {"bad.yaml": lambda p: p.symlink_to("gone")}),
    Case(12, "a link to itself", "bad.yaml", {"bad.yaml": lambda p: p.symlink_to(p)}),
    Case(12, "a path of 5,000 letters", "no such experiment file", command=("check", "a" * 5000)),
    Case(13, "not UTF-8", "must be UTF-8, but byte 9 is not", file(b"name: caf\xe9\n")),
    Case(13, "a byte order mark and Windows line ends", "mlp ", file(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()), "accepted"),
    Case(13, "a NUL byte", "not valid YAML", file(GOOD.encode() + b"x: \0\n")),
    Case(14, "no trials", "greater than or equal to 1, but got 0", experiment("search: {budget: {trials: 0}}\n")),
    Case(14, "-1 trials", "greater than or equal to 1, but got -1", experiment("search: {budget: {trials: -1}}\n")),
    Case(14, "a billion trials", "less than or equal to 1000000", experiment("search: {budget: {trials: 1000000000}}\n")),
    Case(14, "true trials", "`search.budget.trials`", experiment("search: {budget: {trials: true}}\n")),
    Case(14, "half a trial", "`search.budget.trials`", experiment("search: {budget: {trials: 1.5}}\n")),
    Case(14, "no time", "greater than 0", experiment("search: {budget: {time: 0s}}\n")),
    Case(14, "a time of a million days", "less than or equal to", experiment("search: {budget: {time: 1000000d}}\n")),
    Case(14, "a time with 400 digits", "search.budget.time", experiment(f"search: {{budget: {{time: {'9' * 400}h}}}}\n")),
    Case(14, "true seconds", "`search.budget.time`", experiment("search: {budget: {time: true}}\n")),
    Case(14, "no worker", "`resources.slots_per_device`", experiment("resources: {slots_per_device: 0}\n")),
    Case(14, "more workers than cores", "cores", experiment("resources: {devices: cpu, slots_per_device: 256}\n")),
    Case(14, "a cohort of true", "`resources.cohort`", experiment("resources: {cohort: true}\n")),
    Case(15, "a GPU that is not there", "'cuda:99'", experiment("resources: {devices: ['cuda:99']}\n")),
    Case(16, "more than a megabyte", "must be <= 1000000 bytes, but has 1100000", file(b"#" * 1_100_000)),
    not_a_feature(17, "an include that leaves the project", "experiment files include nothing"),
    elsewhere(12, "a file without read permission", "tests/bad_input/test_permissions.py::test_an_unreadable_input"),
)  # fmt: skip


@table(CASES)
def test_config(user: User, case: Case) -> None:
    user.meets(case)
