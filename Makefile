# `make` lists the targets. CI runs exactly these: .ci/run is `make check test rehearse`.
PYTHON ?= python3
# A smaller PyTorch without CUDA on Linux: make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help install demo test test-slow rehearse check format benchmark libraries atlas gpu traps lessons tutorials site mutants clean
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 14

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 13) else f"Python 3.10 to 3.13 is needed, and {sys.executable} is {v[0]}.{v[1]}: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	@# first and alone: another package's wish for torch would pull a build of its own
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PIP) --editable '.[torch,keras,train]'
	@touch $@

.venv/installed-test: .venv/installed
	$(PIP) --editable '.[test,lint]'
	@# --no-deps: they would ask for a torch of their own, and KerasHub for a second TensorFlow
	@# torchvision's compiled part fits only the torch of the same index
	$(PIP) --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torchvision
	$(PIP) --no-deps timm 'transformers; python_version >= "3.11"' 'keras-hub; python_version >= "3.11"'
	@# --no-deps: what runs a graph needs numpy alone, and would ask for its telemetry
	$(PIP) --no-deps openvino
	@touch $@

install: .venv/installed ## Make .venv with PyTorch, Keras on TensorFlow, and the rosetta command

demo: .venv/installed ## ResNet-50 in both frameworks, compared layer by layer on two photographs
	@$(BIN)/rosetta compare resnet50

test: .venv/installed-test ## The test suite
	@$(BIN)/python -m pytest -n 2

test-slow: .venv/installed-test ## The tests that take minutes: nets of 1001 and 1202 layers, many random rows
	@$(BIN)/python -m pytest -n 2 -m slow

rehearse: .venv/installed-test ## What `make gpu` does, on the CPU with small nets, in less than two minutes
	@$(BIN)/python -m pytest -n 0 -m slow tests/speed/test_gpu.py

check: .venv/installed-test ## Lint, format, types, and who may import whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo --no-cache

format: .venv/installed-test ## Put the sources in ruff's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

benchmark: .venv/installed-test ## Speed against torchvision, timm, keras.applications, ONNX Runtime and OpenVINO; how cost grows; porting
	@PYTHONPATH=benchmarks $(BIN)/python benchmarks/speed.py --json benchmarks/results/speed-cpu.json
	@PYTHONPATH=benchmarks $(BIN)/python benchmarks/scaling.py --json benchmarks/results/scaling-cpu.json --plot docs/scaling.png
	@PYTHONPATH=benchmarks $(BIN)/python benchmarks/building.py --json benchmarks/results/building-cpu.json
	@PYTHONPATH=benchmarks $(BIN)/python benchmarks/engines.py --framework torch --framework keras --json benchmarks/results/engines-cpu.json
	@$(BIN)/python benchmarks/port.py --json benchmarks/results/port-cpu.json
	@PYTHONPATH=benchmarks $(BIN)/python benchmarks/train.py --json benchmarks/results/train-cpu.json

libraries: .venv/installed-test ## Every ResNet of other libraries, saved and read; writes docs/libraries.*
	@$(BIN)/python benchmarks/libraries.py

atlas: .venv/installed-test ## Every variant on every backend and check; writes docs/atlas.* and docs/variants.md; goes on where it stopped
	@PYTHONPATH=benchmarks $(BIN)/python benchmarks/atlas.py

gpu: .venv/installed-test ## On a GPU: tests, parity, speed, training, in the order of their worth, in 9 minutes; goes on where it stopped
	@$(BIN)/python benchmarks/gpu.py

site: .venv/installed-test ## Static pages for teachers and learners, in site/
	@$(BIN)/rosetta site site

traps: .venv/installed-test ## What each fault does, for docs/traps.md and docs/traps.json
	@$(BIN)/python benchmarks/traps.py

lessons: .venv/installed-test ## The figures of the lessons, measured anew; then the site
	@$(BIN)/python benchmarks/traps.py --lessons
	@$(BIN)/rosetta site site

tutorials: .venv/installed-test ## Other people's nets, diagnosed: docs/tutorials.json and a table; it executes their files
	@$(BIN)/python benchmarks/tutorials.py

mutants: .venv/installed-test ## Faults in the project, one by one, against the tests that should see them; docs/mutants.md; goes on where it stopped
	@$(BIN)/python tests/mutants.py

clean: ## Remove .venv and caches
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
