# Each target works alone on a fresh machine: it makes the virtual environment that it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-slow lint bench clean

demo: $(VENV)/installed
	$(BIN)/hierax demo

test: $(VENV)/tested
	$(BIN)/python -m pytest

test-slow: $(VENV)/tested
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/linted
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

bench: $(VENV)/tested
	$(BIN)/python -m pytest tests/benchmarks -m benchmark --benchmark-enable

clean:
	rm -rf $(VENV) hierax-demo

$(VENV)/made:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/installed: $(VENV)/made pyproject.toml
	$(PIP) --editable .
	touch $@

$(VENV)/tested: $(VENV)/installed
	$(PIP) --editable '.[test]'
	touch $@

$(VENV)/linted: $(VENV)/tested
	$(PIP) --editable '.[test,lint]'
	touch $@
