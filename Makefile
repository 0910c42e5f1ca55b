PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash

.PHONY: demo test lint types bench docs clean

# Two parts beside each other, one thread each, fill two cores better than one part after another.
demo: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/clarep demo --engine ray --out runs/demo

# Each worker begins with a whole share of the files, so that what a file makes is made once. The
# processes that tests start read compiled clarep, whatever the environment says.
test: .venv/ready
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --maxprocesses 4 --dist worksteal

lint: .venv/ready
	$(BIN)/ruff check src tests tools noxfile.py
	$(BIN)/ruff format --check src tests tools noxfile.py

types: .venv/ready
	$(BIN)/mypy

bench: .venv/ready
	$(BIN)/clarep bench subspace --out runs/bench
	$(BIN)/clarep bench distill --out runs/bench

docs: .venv/ready
	$(BIN)/mkdocs build --strict

# The stamp is written last and taken away first: an installation that was cut off, at whatever point,
# starts from nothing. A half-made .venv/bin/python may be the system's, where pip must not install.
.venv/ready: pyproject.toml weights/pyproject.toml
	test -e $@ || { rm -rf .venv && $(PYTHON) -m venv .venv; }
	rm -f $@
	$(BIN)/python -m pip --require-virtualenv install --quiet --editable '.[dev]' --editable ./weights
	touch $@

clean:
	rm -rf .venv runs site
