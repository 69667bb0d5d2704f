# make demo   the whole of ReasonEmbed on the bundled pocket collection, offline, without a key
# make test   the tests, offline
# make lint   ruff and mypy
# Each sets up what it needs: a virtual environment in .venv, versions from constraints.txt.
# PYTHON and VENV may be given; TORCH may name another build, e.g. make demo TORCH=/path/to/torch-cpu.whl

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo demo-full test lint clean

demo: $(VENV)/.ready-demo
	$(VENV)/bin/reasonembed demo

demo-full: $(VENV)/.ready-demo
	$(VENV)/bin/reasonembed demo --full

test: $(VENV)/.ready-dev
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist loadscope

lint: $(VENV)/.ready-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(VENV)/.ready-%: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "installing PyTorch and the packages of constraints.txt into $(VENV) (some minutes)"
	$(PIP) "$(TORCH)"
	$(PIP) -e ".[$*]"
	@touch $@

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
