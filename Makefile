# Every habit has a target; `make help` lists them.
#
# DRAGOMAN_COMPILE=0 runs and tests the Python sources as they are, =1 insists on compiling, unset tries.
# PYTHON=python3.12 chooses the Python that .venv is made with.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find dragoman interop broker protocols store -name '*.py')
BUILD := setup.py setup.cfg pyproject.toml
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help run test interop lint types fuzz bench chaos audit docs wheel build clean
.DELETE_ON_ERROR:

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

run: build ## start a broker on 127.0.0.1:5672 (CONFIG=dragoman.toml for a configuration of your own)
	$(BIN)/dragoman serve $(if $(CONFIG),--config $(CONFIG))

test: build $(VENV)/tested-with ## run the tests, two files at a time (ARGS="-k queue -x" for pytest)
	$(PYTEST) $(or $(ARGS),-n 2 --dist loadfile)

interop: build $(VENV)/tested-with ## drive the broker with clients in Node, Java (JMS too) and Go
	$(BIN)/python tests/conformance/run_interop.py $(ARGS)

lint: $(VENV)/tested-with ## style
	$(BIN)/ruff check .

types: $(VENV)/tested-with ## types, strictly
	$(BIN)/mypy

fuzz: $(VENV)/fuzzed-with ## feed every parser nonsense, for FUZZ_SECONDS=300 in all (ARGS="selector sasl" for some)
	$(BIN)/python -m tests.fuzz.hunt --seconds $${FUZZ_SECONDS:-300} $(ARGS)

bench: build $(VENV)/tested-with ## measure; PEER=host:port measures another broker in the same run
	$(BIN)/python -m tests.bench $(if $(PEER),--peer $(PEER)) $(ARGS)

chaos: build $(VENV)/tested-with audit ## kill brokers under load, CHAOS_ROUNDS=50 times, attack them, look for lost messages
	CHAOS_ROUNDS=$${CHAOS_ROUNDS:-50} $(PYTEST) tests/chaos $(ARGS)

audit: $(VENV)/tested-with ## look the installed packages up in the database of known vulnerabilities
	$(BIN)/python -m tests.audit

docs: $(VENV)/tested-with ## write the tables of docs/configuration.md, queue-options.md and translation.md anew
	$(BIN)/python -m dragoman.config_text docs/configuration.md
	$(BIN)/python -m dragoman.options_text docs/queue-options.md
	$(BIN)/python -m tests.conformance.matrix.page docs/translation.md

wheel: $(VENV)/ready ## build a wheel into dist/
	rm -rf build
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

build: $(VENV)/compiled ## make .venv and compile

clean: ## remove .venv and all that was built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find dragoman interop broker protocols store -name '*.so' -delete

# The environment, with what the broker needs and what compiles it.
$(VENV)/ready: $(BUILD)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo \
	  "Dragoman needs Python 3.11 or newer. On Debian 12: apt install python3 python3-venv python3-dev gcc" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo \
	  "Python's venv is missing. On Debian 12: apt install python3-venv" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'setuptools>=64' wheel mypy==2.4.1
	DRAGOMAN_COMPILE=0 $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -e .
	@touch $@

# What the tests need on top of it, but for Kerberos, which takes a compiler. Not by `pip install -e .[test]`: that
# would remove what was compiled.
$(VENV)/tested-with: $(VENV)/ready
	@$(BIN)/python -c 'from importlib.metadata import requires; print(*(line.partition(";")[0] for line in \
	  requires("dragoman") if "extra ==" in line and "kerberos" not in line), sep="\n")' > $(VENV)/test-requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(VENV)/test-requirements.txt
	@touch $@

# atheris has wheels for some Pythons and machines only; without it, `make fuzz` goes on blindly.
$(VENV)/fuzzed-with: $(VENV)/tested-with
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: 'atheris >=3.0' \
	  || echo "atheris cannot be installed: inputs will be mutated at random"
	@touch $@

# Compiled modules are imported instead of their sources, so they must never be the older ones: setup.py removes them
# all before it builds, and again when one of them fails.
$(VENV)/compiled: $(VENV)/ready $(SOURCES) $(VENV)/mode-$(DRAGOMAN_COMPILE)
	@echo "compiling (a minute or two; DRAGOMAN_COMPILE=0 skips it)"
	@$(BIN)/python setup.py --quiet build_ext --inplace > $(VENV)/compile.log 2>&1 \
	  || { cat $(VENV)/compile.log; exit 1; }
	@grep 'not compiled' $(VENV)/compile.log || true
	@find broker -name '_compiled*.so' -exec touch {} +  # a change of comments alone compiles to what was there
	@$(BIN)/dragoman --version
	@touch $@

# Changing the mode builds again.
$(VENV)/mode-$(DRAGOMAN_COMPILE): $(VENV)/ready
	@rm -f $(VENV)/mode-*
	@touch $@
