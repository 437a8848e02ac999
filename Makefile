# The commands of a developer's day. Every target makes .venv and builds when it has to, and starts
# at once when nothing changed. `make help` lists them.

# Which torch to install into a new environment: the only place where this is decided.
#   CPU machine:  one release, the newest that the suite runs with on this platform. It is pinned, because
#                 an open range takes the newest CUDA build, several GB; where pip is configured with
#                 PyTorch's CPU builds (index or folder), the pin finds the CPU build, a tenth of that size.
#   CUDA machine: whatever release is current; PyPI's builds carry CUDA.
# An environment that can import torch keeps the one it has. Override it as in
#   make TORCH='torch==2.12.0 --index-url <the index of PyTorch's CPU builds>'
TORCH ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo 'torch>=2.11' || echo 'torch==2.13.0')

VENV  ?= .venv
# Arguments for pytest, as in: make test PYTEST='-k scheduler -x'
PYTEST ?=
# CUDA architectures of make wheel-cuda; empty takes the list of cmake/MmcoreCuda.cmake
ARCHS  ?=

venv     := $(abspath $(VENV))
bin      := $(venv)/bin
stamps   := $(venv)/.stamps
setup    := bash scripts/setup_env.sh $(venv)
compiled := $(shell find bindings cmake cpp cuda -type f 2>/dev/null) CMakeLists.txt
export PATH := $(bin):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help demo test test-cpp test-python bench soak mutations cuda-check gpu stubs format lint typecheck wheel wheel-cuda clean build

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

build: $(stamps)/built ## the virtual environment and the extension

demo: $(stamps)/built ## caption the bundled picture with the bundled checkpoint
	@$(bin)/mmcore demo

test: $(stamps)/built $(stamps)/test ## the C++ tests and the Python tests
	@bash scripts/run_tests.sh cpp python -- $(PYTEST)

test-cpp: $(stamps)/built ## the C++ tests
	@bash scripts/run_tests.sh cpp

test-python: $(stamps)/built $(stamps)/test ## the Python tests; PYTEST='-k name' selects
	@bash scripts/run_tests.sh python -- $(PYTEST)

bench: $(stamps)/built ## the C++ benchmarks and the ops against torch
	@bash scripts/run_benchmarks.sh

soak: $(stamps)/built $(stamps)/test ## look for rare faults for MINUTES (10), write benchmarks/results/soak-*.md
	@bash scripts/soak.sh

mutations: $(stamps)/deps ## break the core on purpose: each mistake of tests/mutations must be caught and named
	@$(bin)/python scripts/check_mutations.py

cuda-check: $(stamps)/deps ## compile the CUDA kernels; needs nvcc, no GPU
	@bash scripts/cuda_check.sh

gpu: ## on a machine with a GPU: build, tests marked gpu, benchmarks
	@bash scripts/gpu.sh

stubs: $(stamps)/built $(stamps)/dev ## write python/mmcore/_C.pyi anew from the extension
	@$(bin)/python scripts/generate_stubs.py

format: $(stamps)/dev ## format C++, CUDA and Python
	@bash scripts/format.sh

lint: $(stamps)/dev ## check format, lint and the direction of includes and imports
	@bash scripts/format.sh --check
	@$(bin)/ruff check .
	@$(bin)/python scripts/check_layers.py

typecheck: $(stamps)/built $(stamps)/dev ## mypy --strict, and drift of the extension's stub
	@$(bin)/mypy
	@$(bin)/python scripts/generate_stubs.py --check

wheel: $(stamps)/deps $(stamps)/wheel-build ## a wheel in dist/, with a manylinux tag
	@bash scripts/make_wheel.sh cpu

wheel-cuda: $(stamps)/deps $(stamps)/wheel-build ## likewise with CUDA kernels, in dist/cuda; ARCHS='90a-real' builds for fewer
	@bash scripts/make_wheel.sh cuda "$(ARCHS)"

clean: ## remove what was built, keep the virtual environment
	rm -rf build dist $(stamps)/built .pytest_cache .mypy_cache .ruff_cache

$(bin)/python:
	@$(setup) venv

$(stamps)/deps: pyproject.toml | $(bin)/python
	@$(setup) deps "$(TORCH)"
	@mkdir -p $(stamps) && touch $@

$(stamps)/test $(stamps)/dev $(stamps)/wheel-build: $(stamps)/%: pyproject.toml | $(stamps)/deps
	@$(setup) group $*
	@touch $@

$(stamps)/built: $(compiled) $(stamps)/deps
	@$(setup) build
	@touch $@
