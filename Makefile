# Everything a newcomer needs: `make demo`, `make test`. No root. Set PYTHON to use another interpreter (3.11 or later).
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
PIP     = $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: help smartredis demo demo-mpi demo-database demo-inference demo-training test test-all lint type docs bench bench-databases bench-inference bench-schedulers coverage wheel clean ml
help:
	@echo "make demo      a real sweep of LAMMPS with a database and a network in it, from nothing; says where the results are"
	@echo "make demo-mpi  the same with every member on 2 MPI ranks"
	@echo "make demo-database  two producers and a consumer of tensors, with a database beside them"
	@echo "make demo-training  simulations, and a network that learns from them while they use it (needs PyTorch)"
	@echo "make demo-inference  a flow solver of four ranks that calls a network in every step"
	@echo "make test      the fast test suite"
	@echo "make test-all  every test, also the slow ones     make coverage  the coverage gate of the pure layers"
	@echo "make ml        torch, TensorFlow, onnxruntime and LiteRT, which some tests and benchmarks need (2 GB)"
	@echo "make smartredis  the real SmartRedis, which some tests compare with"
	@echo "make lint | type | docs | wheel | bench"

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "asim needs Python 3.11 or later; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install 'pip>=25.1'
	touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml
	$(PIP) install -e '.[demo]'
	touch $@

$(VENV)/.torch: $(VENV)/.demo
	$(PIP) install -e '.[demo,torch]'
	touch $@

$(VENV)/.test: $(VENV)/.made pyproject.toml
	$(PIP) install -e . --group test
	touch $@

$(VENV)/.ml: $(VENV)/.test
	$(PIP) install --group ml
	touch $@

$(VENV)/.lint: $(VENV)/.made pyproject.toml
	$(PIP) install -e . --group lint --group test
	touch $@

$(VENV)/.docs: $(VENV)/.made pyproject.toml
	$(PIP) install -e . --group docs
	touch $@

$(VENV)/.bench: $(VENV)/.made pyproject.toml
	$(PIP) install -e . --group bench
	touch $@

# the real client, for the tests of compatibility: it needs an older numpy, and Python 3.11
$(VENV)-smartredis/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 12) and "SmartRedis needs Python 3.9 to 3.11; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)-smartredis
	$(VENV)-smartredis/bin/python -m pip --disable-pip-version-check -q install 'numpy<2' smartredis==0.6.1
	touch $@

smartredis: $(VENV)-smartredis/.made

ml: $(VENV)/.ml

demo: $(VENV)/.demo
	$(BIN)/python examples/lammps_sweep/sweep.py

demo-mpi: $(VENV)/.demo
	$(BIN)/python examples/lammps_sweep/sweep.py --ranks 2

demo-database: $(VENV)/.demo
	$(BIN)/python examples/key_prefixing/experiment.py

demo-inference: $(VENV)/.demo
	$(BIN)/python examples/online_inference/smoke.py

demo-training: $(VENV)/.torch
	$(BIN)/python examples/online_training/train.py

# tests wait more than they work
WORKERS := $(shell cores=$$(getconf _NPROCESSORS_ONLN); echo $$((cores < 4 ? 2 * cores : 8)))
test: $(VENV)/.test
	$(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile

test-all: $(VENV)/.test
	$(BIN)/python -m pytest

# the pure layers, by the tests that need no processes
PURE = asim/errors.py,asim/status.py,asim/units.py,asim/config.py,asim/_lazy.py,asim/entities/*,asim/settings/*,asim/plan.py,asim/planner.py,asim/ordering.py,asim/preview.py,asim/generate.py,asim/templates.py,asim/strategies.py,asim/values.py,asim/tables.py,asim/policies.py,asim/log.py,asim/launchers/base.py,asim/agent/protocol.py,asim/database/address.py,asim/database/config.py,asim/database/environment.py,asim/database/planning.py,asim/database/objects.py,asim/database/targets.py,asim/database/security.py,asim/engine/protocol.py,asim/client/codec.py,asim/client/keys.py,asim/client/dataset.py,asim/client/cluster.py,asim/client/options.py,asim/client/replies.py
coverage: $(VENV)/.test
	$(BIN)/python -m coverage run -m pytest -q tests/unit
	$(BIN)/python -m coverage report --skip-covered --include '$(PURE)' --fail-under 95

wheel: $(VENV)/.made
	$(PIP) install build
	rm -rf dist && $(BIN)/python -m build -q
	$(BIN)/python -c 'import glob, zipfile; (path,) = glob.glob("dist/asim-*-py3-none-linux_*.whl"); names = zipfile.ZipFile(path).namelist(); assert {"asim/py.typed", "asim/agent/main.py", "asim/engine/asim_engine.so", "asim/engine/module/tensor.c"} <= set(names), names'

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell asim tests docs examples benchmarks README.md CHANGELOG.md CONTRIBUTING.md

type: $(VENV)/.lint
	$(BIN)/mypy

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/ensembles.py

bench-databases: $(VENV)/.bench
	$(BIN)/python benchmarks/databases.py
	$(BIN)/python benchmarks/tensors.py

bench-schedulers: $(VENV)/.test
	$(BIN)/python benchmarks/schedulers.py

bench-inference: $(VENV)/.bench ml smartredis
	$(BIN)/python benchmarks/inference.py

clean:
	rm -rf $(VENV) $(VENV)-smartredis site build dist .mypy_cache .ruff_cache .hypothesis
