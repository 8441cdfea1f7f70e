# `make demo` and `make test` work on a fresh machine: the first call makes .venv and fills it.
# CONTRIBUTING.md says what each target is for.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Idle OpenMP threads sleep instead of spinning: several processes share the cores in tests and loaders.
export OMP_WAIT_POLICY := PASSIVE
# Only an advertisement of mkdocs-material's successor.
export NO_MKDOCS_2_WARNING := 1

.PHONY: demo test check bench docs clean

demo: $(INSTALLED)
	$(BIN)/gcnet demo --quick

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow and not gpu"

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/mkdocs build --strict --quiet

# In under a quarter of an hour on two cores; benchmarks/README.md says what each claims, and has the longer ones too.
BENCHMARKS := context_tax block_alone training_step accelerated_models nonlocal_peers nonlocal_softmax onnx_latency cost_table

bench: $(INSTALLED)
	@for name in $(BENCHMARKS); do \
		echo; echo "$(BIN)/python benchmarks/$$name.py"; $(BIN)/python benchmarks/$$name.py || exit 1; \
	done

docs: $(INSTALLED)
	$(BIN)/mkdocs serve

clean:
	rm -rf $(VENV) site dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Remade when the dependencies change; the package itself is installed in place.
$(INSTALLED): pyproject.toml constraints.txt
	@for python in python3 python3.14 python3.13 python3.12 python3.11; do \
		if "$$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			[ -x $(BIN)/python ] || { echo "$$python -m venv $(VENV)"; "$$python" -m venv $(VENV); }; exit $$?; \
		fi; \
	done; \
	echo "make: gcnet needs Python 3.11 or newer with venv (Debian: apt install python3 python3-venv); found: $$(python3 --version 2>&1)"; \
	exit 1
	@echo "installing gcnet and its dependencies into $(VENV): some gigabytes, minutes, only when they change"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[train,report,demo,export,dev]"
	@touch $@
