# make demo   build a training set from the sample that ships with the project
# make test   the whole test suite
# make bench  ratios against bare loops and peers, measured in one run
# Each sets up what it needs in .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_READY := $(VENV)/.run-ready
DEV_READY := $(VENV)/.dev-ready
LITELLM_READY := .venv-litellm/.ready
STREAMING_READY := .venv-streaming/.ready
PEER_READY := .venv-img2dataset/.ready
UV := $(BIN)/python -m uv

.PHONY: demo test bench check lock clean

demo: $(RUN_READY)
	@$(BIN)/vlmdata demo

test: $(DEV_READY) $(LITELLM_READY) $(STREAMING_READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pytest tests --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

bench: $(DEV_READY) $(PEER_READY)
	@$(BIN)/python -m benchmarks

$(BIN)/python:
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "vlmdata needs Python 3.11 or newer: make PYTHON=python3.11 ..." >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9,<1"

$(RUN_READY): $(BIN)/python requirements.lock pyproject.toml
	@echo "Installing the libraries that vlmdata runs on (about 6 GB with torch; a minute or two, once)"
	@$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	@$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps --editable .
	@touch $@

$(DEV_READY): $(RUN_READY) requirements-dev.lock
	@echo "Installing what the tests need"
	@$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements-dev.lock
	@touch $@

# A gateway that the tests speak to; its pins and ours do not fit into one environment.
$(LITELLM_READY): $(BIN)/python tests/integration/litellm.lock
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python .venv-litellm
	@$(UV) pip install --quiet --compile-bytecode --python .venv-litellm/bin/python --require-hashes -r tests/integration/litellm.lock
	@touch $@

# The reader of MDS; it pins numpy and transformers, and insists on torch (as ours: not downloaded twice, nor stored).
$(STREAMING_READY): $(BIN)/python tests/integration/streaming.lock
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python .venv-streaming
	@$(UV) pip install --quiet --python .venv-streaming/bin/python --require-hashes -r tests/integration/streaming.lock
	@touch $@

# What downloads are measured against; it has pins of its own, too.
$(PEER_READY): $(BIN)/python benchmarks/img2dataset.lock
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python .venv-img2dataset
	@$(UV) pip install --quiet --compile-bytecode --python .venv-img2dataset/bin/python --require-hashes -r benchmarks/img2dataset.lock
	@touch $@

check: $(DEV_READY)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/mypy

lock: $(BIN)/python
	@$(UV) pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet --output-file requirements-dev.lock
	@$(UV) pip compile pyproject.toml --extra report --universal --python-version 3.11 --generate-hashes --constraint requirements-dev.lock \
	  --no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet --output-file requirements.lock

clean:
	rm -rf $(VENV) .venv-litellm .venv-streaming .venv-img2dataset demo build
