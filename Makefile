PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash

.PHONY: demo test lint types bench clean

demo: .venv/ready
	$(BIN)/clarep demo --out runs/demo

test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --maxprocesses 4

lint: .venv/ready
	$(BIN)/ruff check src tests tools
	$(BIN)/ruff format --check src tests tools

types: .venv/ready
	$(BIN)/mypy

bench: .venv/ready
	$(BIN)/clarep bench subspace --out runs/bench
	$(BIN)/clarep bench distill --out runs/bench

# The stamp is written last: an installation that was cut off starts again.
.venv/ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch .venv/ready

clean:
	rm -rf .venv runs
