# SPDX-License-Identifier: MIT
#
# Commands for development, described in CONTRIBUTING.md. The first group needs a virtual environment (`make install`)
# and no Bazel. The second group uses Bazel, with locked versions of all dependencies.

PYTHON ?= python3
VENV ?= .venv

.DEFAULT_GOAL := help
.PHONY: help install native vectors pytest pytest-quick test test-all lint format types docs bench wheels

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 16

install: ## install the package in editable mode with its test dependencies, in .venv
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -e '.[dev]'

native: ## compile the extension again after a change in native/ or py/*.c
	$(VENV)/bin/python setup.py --quiet build_ext --inplace

vectors: ## write tests/vectors/*.json again after a change in tests/generators/
	PYTHONPATH=tests/support $(VENV)/bin/python tests/generators/make_vectors.py

pytest: ## run the tests in .venv
	$(VENV)/bin/python -m pytest

pytest-quick: ## run the fast tests in .venv, in less than a minute
	$(VENV)/bin/python -m pytest -m 'not slow'

test: ## run the tests of a change, as continuous integration does
	tools/test

test-all: ## run the additional tests of a release: long repetitions, the wheels, all versions of dependencies
	.ci/release

lint: ## check formatting, lint and types
	tools/test //tests/lint/...

format: ## format all sources in place
	tools/format

types: ## check types only
	tools/test //tests/lint:mypy //tests/lint:pyright

docs: ## build the site, in .bazel/bin/docs/site
	bazel build //docs:site

bench: ## compare the speed with other implementations
	bench/run

wheels: ## build the source distribution and the wheels, in dist/
	tools/wheels
