# make demo: the whole chain on embedded images, in minutes.  make test: the default tests.  make test-slow: the long ones.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip

.PHONY: demo test test-slow
demo: $(VENV)/installed
	$(VENV)/bin/python experiments/pipeline.py experiment=demo

test: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python -m pytest -q --numprocesses 2 --dist worksteal

test-slow: $(VENV)/installed
	$(VENV)/bin/python -m pytest -q -m slow

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@
