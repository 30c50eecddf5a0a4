# Each target works alone on a fresh machine: it makes the virtual environment that it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-versions test-slow test-axes test-leaks test-devices test-study check hooks lint bench clean

demo: $(VENV)/installed
	$(BIN)/hierax demo

# Tests that share what is compiled go to one worker: groups are made in tests/conftest.py. A worker that dies ends the
# run at once; where it is replaced, the rest may wait for it for ever.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --max-worker-restart=0

test: $(VENV)/tested
	$(PYTEST)

# What depends on the versions of ArviZ, xarray and pandas that come with another Python.
test-versions: $(VENV)/tested
	$(PYTEST) tests/api tests/data tests/diagnose tests/results tests/test_cli.py tests/infer/test_bayes.py

test-slow: $(VENV)/tested
	$(PYTEST) -m slow

# Tests in which every array is held to the axes that its annotation names (tests/axes.py).
test-axes: $(VENV)/tested
	HIERAX_AXES=axes.checked $(PYTEST) tests/reference tests/dynamics tests/nn tests/infer/test_modes.py \
	  tests/infer/test_gradients.py tests/infer/test_saem.py tests/infer/test_vi.py tests/infer/test_bayes.py

# Tests in which JAX looks for tracers that outlive their function, and tests on a machine of two devices.
WATCHED := tests/reference/test_theophylline.py tests/reference/test_wang.py tests/infer/test_modes.py
test-leaks: $(VENV)/tested
	JAX_CHECK_TRACER_LEAKS=1 $(PYTEST) $(WATCHED)

test-devices: $(VENV)/tested
	XLA_FLAGS=--xla_force_host_platform_device_count=2 $(PYTEST) $(WATCHED)

# Experiments over many data sets, whose results the tests state: an hour.
test-study: $(VENV)/tested
	$(PYTEST) -m study

# Quick tests that together touch every room.
QUICK := tests/test_house.py tests/test_options.py tests/data/test_read.py tests/data/test_population.py \
  tests/data/test_design.py tests/dynamics/test_closed_form.py tests/dynamics/test_exponentials.py \
  tests/program/test_checks.py tests/nn/test_conditional.py tests/infer/test_modes.py tests/infer/test_kernels.py \
  tests/infer/test_clipping.py tests/infer/test_gradients.py tests/infer/test_checkpoint.py \
  tests/results/test_results.py tests/results/test_louis.py tests/diagnose/test_diagnose.py tests/api/test_simulate.py \
  tests/api/test_interrupted.py tests/reference/test_wang.py
# What to run after every change: style, types, layers, and quick tests of every room.
check: lint
	$(PYTEST) $(QUICK)

# The same before every commit.
hooks: $(VENV)/linted
	$(BIN)/pre-commit install

lint: $(VENV)/linted
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

bench: $(VENV)/benched
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

$(VENV)/benched: $(VENV)/tested
	$(PIP) --editable '.[test,bench]'
	touch $@
