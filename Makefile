# Two commands do everything on a fresh machine: `make run` and `make test`.
# Both make the virtual environment first; nothing is installed outside of it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# numba keeps its compiled kernels beside the sources unless told otherwise; one cache serves all test workers.
export NUMBA_CACHE_DIR := $(CURDIR)/build/numba

.PHONY: run test lint docs bench fuzz fuzz-decode fuzz-interleavings clean venv

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,distributed]'
	touch $@

run: $(STAMP)
	@sh tools/run.sh $(BIN)

test: $(STAMP) lint docs
	$(BIN)/python -m pytest -n auto --dist worksteal -q

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMP)
	$(BIN)/python -m sphinx -n -W --keep-going -q -b html docs build/docs
	$(BIN)/python -m sphinx -n -W --keep-going -q -b doctest docs build/doctest

bench: $(STAMP)
	$(BIN)/hvkernel bench
	$(BIN)/python tests/bench/channels.py

# All that is modelled, pairwise, under as many seeds as make 3,000 cells. Always from the beginning: no store, whose
# results would be those of the code as it was.
matrix: $(STAMP)
	@mkdir -p build
	$(BIN)/hvkernel matrix --html build/matrix.html --junit build/matrix.xml

# A million inputs for hvkernel decode (some ten minutes), then SEEDS interleavings from seed FROM on. A failure prints what it
# did and how to replay it.
SEEDS ?= 20000
FROM ?= 0

fuzz: fuzz-decode fuzz-interleavings

fuzz-decode: $(STAMP)
	$(BIN)/python tests/fuzz/decode.py

fuzz-interleavings: $(STAMP)
	$(BIN)/python tests/properties/fuzz.py --seeds $(SEEDS) --from $(FROM)

clean:
	rm -rf build dist $(VENV)
