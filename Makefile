# Two commands for a newcomer: `make run` and `make test`. Each sets up what it needs by itself.

PYTHON ?= python3
# What is frozen: Debian's, with its security updates. It links no path of its own into the binary.
FREEZE_PYTHON ?= /usr/bin/python3.11
# What `make release` builds; the disk image of the VM is for this architecture only, so far.
FORMS ?= binary image $(if $(filter x86_64,$(shell uname -m)),vm)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help setup run demo check test test-image bench bench-tunnel binary image vm release artefacts sign publish reproduce
.PHONY: lint-workflows reference lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/portway.done ## Make .venv/bin/portway

run: $(VENV)/portway.done ## A gateway before an embedded intranet server; proves itself, then stays up
	$(BIN)/portway demo examples/quickstart.toml

demo: $(VENV)/portway.done ## The same, and ends
	$(BIN)/portway demo --once examples/quickstart.toml

check: $(VENV)/dev.done ## Format, lint, types, layers, unit tests: under a minute
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/unit tests/cases tests/sim

test: check ## Everything from source: as check, and fuzz, contract, end to end, real programs
	tests/setup-peers
	$(BIN)/pytest -q --durations=15 --ignore=tests/forms --ignore=tests/container --ignore=tests/vm

test-image: $(FORMS) $(VENV)/dev.done ## What is built: one suite over every form, and end to end through the binary
	tests/setup-peers
	$(BIN)/pytest -q --durations=15 tests/forms $(if $(filter image,$(FORMS)),tests/container) $(if $(filter vm,$(FORMS)),tests/vm)
	$(BIN)/pytest -q --form=single tests/e2e tests/capacity
	$(BIN)/pytest -q --form=folder tests/e2e

bench: $(VENV)/dev.done ## Portway beside nginx, HAProxy and socat on this machine: dist/bench.json
	tests/setup-peers
	$(BIN)/python -m bench

bench-tunnel: $(VENV)/dev.done ## Its tunnel beside frp, rathole and ssh -R: dist/bench-tunnel.json
	tests/setup-peers
	bench/tunnel/setup-peers
	$(BIN)/python -m bench.tunnel

binary: ## The frozen program: dist/portway, one file; dist/portway-*.tar.gz, a folder
	build/setup-tools
	$(FREEZE_PYTHON) build/freeze.py

image: binary ## The container image: dist/portway-oci.tar
	image/container/setup-tools
	$(FREEZE_PYTHON) -m image.container.build

vm: binary ## The disk image of the VM: dist/portway.raw and .qcow2
	image/vm/setup-tools
	$(FREEZE_PYTHON) -m image.vm.build

release: artefacts ## All of it for this machine, signed: dist/release
	$(MAKE) sign

artefacts: $(FORMS) $(VENV)/dev.done ## The forms, SBOM, licences and notes: dist/release
	$(BIN)/python -m build.release

sign: ## SHA256SUMS of dist/release, and its signature
	build/install-missing sign minisign:minisign
	$(PYTHON) -m build.sign

publish: ## Put dist/release where people find it; for CI, at a tag
	$(PYTHON) -m build.publish

reproduce: ## Build twice in different surroundings and compare; FORMS="binary" for some
	$(FREEZE_PYTHON) -m build.reproduce $(FORMS)

lint-workflows: $(VENV)/dev.done ## What CI does, by actionlint and zizmor
	$(BIN)/python -m build.workflows

reference: $(VENV)/dev.done ## Write docs/ruleset.md, docs/log.md and docs/machine.md anew from the model
	$(BIN)/python -m appliance.ruleset.reference > docs/ruleset.md
	$(BIN)/python -m appliance.observe.reference > docs/log.md
	$(BIN)/python -m appliance.machine.reference > docs/machine.md

lock: $(VENV)/dev.done ## Pin every dependency anew, with hashes
	$(PIP) install pip-tools
	$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host --upgrade --extra setup -o requirements.lock pyproject.toml
	$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host --upgrade --extra dev -o requirements-dev.lock pyproject.toml
	$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host --upgrade -c requirements.lock -o build/requirements.lock build/requirements.in
	$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host --upgrade -o build/workflows.lock build/workflows.in

clean: ## Remove what the other targets made
	rm -rf $(VENV) dist .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info
	find appliance tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Portway needs Python 3.11 or later; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@# Debian keeps what makes a virtual environment in a package of its own.
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { rm -rf $(VENV); \
		[ "$$(id -u)" = 0 ] && apt-get -qq update && apt-get -qqy install python3-venv && $(PYTHON) -m venv $(VENV); } || { \
		echo "This Python cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/portway.done: $(VENV)/bin/python requirements.lock pyproject.toml
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.done: $(VENV)/portway.done requirements-dev.lock
	$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@
