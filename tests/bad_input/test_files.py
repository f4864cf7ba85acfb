"""63 to 68: archives, file names, and where output goes."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np

from tests.bad_input.cases import GOOD, TABLE, Case, User, elsewhere, not_a_feature, source, table
from tests.bad_input.test_arrays import IMAGES, idx

PREDICT = ("predict", "bad", "train.csv", "-o")
RUN = ("run", "bad.yaml", "--no-prefect")


def slipping(path: Path) -> None:
    """An npz archive whose members lie outside of it."""
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((60, 3)))
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("../../x.npy", "/tmp/y.npy"):
            archive.writestr(name, buffer.getvalue())


def linking(path: Path) -> None:
    """An npz archive with a symbolic link for x."""
    member = zipfile.ZipInfo("x.npy")
    member.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, "/etc/passwd")


def named(name: str) -> dict[str, object]:
    """The good table under another name."""
    return {"bad.yaml": GOOD.replace("train.csv", f'"{name}"'), "train.csv": TABLE}


CASES = (
    Case(63, "an npz archive with paths that leave it", "the archive has the arrays", source("a.npz", slipping)),
    not_a_feature(64, "a tar archive that leaves its folder", "tar archives"),
    elsewhere(65, "a gzip bomb", "tests/bad_input/test_tables.py::test_tables"),
    elsewhere(65, "a zip bomb", "tests/bad_input/test_arrays.py::test_arrays"),
    Case(66, "an npz archive with a link in it", "a.npz: ", source("a.npz", linking)),
    Case(66, "a named pipe for a source", "must be a regular file", {**named("pipe.csv"), "pipe.csv": os.mkfifo}),
    Case(66, "a named pipe for labels", "no labels file", {**source("t-images-idx3-ubyte", idx(IMAGES)), "t-labels-idx1-ubyte": os.mkfifo}),
    Case(66, "an endless device for a source", "must be a regular file", named("/dev/zero")),
    Case(67, "a name with a line break", "no such file", named("a\\nb.csv")),
    Case(67, "a name with a NUL byte", "no such file", named("a\\0b.csv")),
    Case(67, "a name that turns the direction of writing", "a\\u202eb.csv: no such file", named("a\\u202eb.csv")),
    Case(67, "a name of 300 letters", "no such file", named("a" * 300 + ".csv")),
    Case(67, "a path of 10,000 letters", "no such file", named("a/" * 5000 + "b.csv")),
    Case(67, "the home folder of nobody", "the home folder in it is not known", named("~no-such-user/b.csv")),
    Case(68, "an output that is a folder", "exists and is no file", {"out.csv": Path.mkdir}, command=(*PREDICT, "out.csv")),
    Case(68, "an output that is a pipe", "exists and is no file", {"out.csv": os.mkfifo}, command=(*PREDICT, "out.csv")),
    Case(68, "an output in a file", "cannot be written", command=(*PREDICT, "train.csv/out.csv")),
    Case(68, "an output of another type", "must be a .csv or .parquet file", command=(*PREDICT, "out.xlsx")),
    Case(68, "a state folder that is a link", "is a link to ", {"mlruns": lambda p: p.symlink_to("/tmp")}, command=RUN),
    Case(68, "a state folder that is a dead link", "is a link to ", {"mlruns": lambda p: p.symlink_to("gone")}, command=RUN),
    Case(68, "a state folder that is a file", "is not a folder", {"mlruns": "x"}, command=RUN),
    Case(68, "a state folder that cannot be made", "cannot be made", command=RUN, environment={"AUTOML_STATE": "/proc/automl"}),
    Case(68, "a state folder inside a file", "cannot be made", command=RUN, environment={"AUTOML_STATE": "FOLDER/train.csv/x"}),
    elsewhere(68, "a state folder that is not writable", "tests/bad_input/test_permissions.py::test_a_state_folder_that_is_not_writable"),
    elsewhere(68, "a search that another process runs", "tests/search/test_directory.py::test_a_second_controller_learns_who_is_the_first"),
)  # fmt: skip


@table(CASES)
def test_files(user: User, case: Case) -> None:
    user.meets(case)
