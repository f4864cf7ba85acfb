# make demo           a search over MLP, CNN and LSTM on bundled digits, from nothing to a champion
# make test           the whole gate: format, lint, types, tests
# make check          the gate without tests
# make chaos          twenty searches under random kills, outages of a minute, readers on fresh draws; CHAOS_ROUNDS and CHAOS_SEED
# make soak           five ticks of a real one-minute cron while the data grows: about seven minutes
# make bench-honesty  how often intervals hold fresh scores, and equals are promoted over each other
# make bench-cohort   cohorts against plain loops, as in the README's table

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test check chaos soak bench-cohort bench-honesty clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; assert sys.version_info[:2] == (3, 11), "Python 3.11 is needed, but found " + sys.version'
	$(PIP) torch
	$(PIP) --editable '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/automl run examples/digits.yaml
	$(BIN)/automl leaderboard digits --limit 10
	@echo
	@echo "Compare the trials in MLflow:  $(BIN)/automl ui   then open http://127.0.0.1:5000"

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: check
	$(BIN)/pytest -q --numprocesses 2 --dist loadfile

chaos: $(STAMP)
	HYPOTHESIS_PROFILE=anew $(BIN)/pytest -q -m hypothesis tests/data
	$(BIN)/pytest -q -s -m 'chaos or slow' tests/chaos tests/registry tests/packaging

soak: $(STAMP)
	AUTOML_SOAK=1 $(BIN)/pytest -q tests/flows/test_soak.py

bench-cohort: $(STAMP)
	$(BIN)/python -m benchmarks cohort

bench-honesty: $(STAMP)
	$(BIN)/python -m benchmarks honesty

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
