# Two commands a newcomer needs: `make demo` and `make test`. Both build .venv first, on a machine with only Python and git.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.PHONY: demo test lint check format clean

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(READY)  ## reconstruct the bundled example photos and say where to look
	$(BIN)/unposed demo --out demo

test: $(READY)  ## the whole suite
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: $(READY)  ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint test  ## everything CI runs

clean:
	rm -rf $(VENV) demo build dist .mypy_cache .ruff_cache .pytest_cache
