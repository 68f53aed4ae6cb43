# On a bare machine with Python 3.11 or newer and make: `make demo`, `make test`. Everything goes into .venv.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
UV := $(BIN)/python -m uv
DEMO := umcm-colorectal warwick-crc janowczyk2 camelyon16 lung
OPEN := patch-camelyon pannuke gleason-arvaniti sicapv2 tolkach-esca nct-crc-he-nonorm skin-kriegsmann pbc-acevedo \
	tcga-tils unitopatho
SHARDS := demo/shards
OPEN_SHARDS := demo/open-shards
RUN := --runs runs --run demo
OPEN_RUN := --runs runs --run demo-open
BASE ?= HEAD
USERS := train timm cluster s3 gcs http 7z czi vsi zarr onnx hub wandb gradients mlflow  # extras that are no developer's

# uv installs no bytecode: without it, each of the many processes would compile torch again. It goes into .venv.
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPYCACHEPREFIX := $(CURDIR)/.venv/pycache

.PHONY: help demo demo-open test suite check lint rules types format stress lowest gpu gpu-bench bench docs pictures clean
.DEFAULT_GOAL := help

help:  ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/demo $(DEMO:%=demo/sources/%)  ## sources -> shards -> pre-training without Lung -> transfer to Lung -> report
	for source in $(DEMO); do $(BIN)/dpconvert $$source --source demo/sources/$$source --out $(SHARDS) || exit 1; done
	$(BIN)/dpconvert verify $(SHARDS)
	$(BIN)/mtrain fit --shards $(SHARDS) --leave-out Lung $(RUN) --backbone efficientnet_lite0 --size 96 \
		--batch 32 --iterations 60 --lr 1e-3 --tau 5 --log-every 5
	$(BIN)/mtrain transfer --mode svm $(RUN)
	$(BIN)/mtrain transfer --mode svm $(RUN) --weights imagenet
	$(BIN)/mtrain report $(RUN)

demo-open: .venv/demo $(OPEN:%=demo/sources/%)  ## the same with ten open sources: HDF5, NumPy, tars, zips, workbooks, tables
	for source in $(OPEN); do \
		$(BIN)/dpconvert $$source --source demo/sources/$$source --out $(OPEN_SHARDS) || exit 1; done
	$(BIN)/dpconvert verify $(OPEN_SHARDS)
	$(BIN)/mtrain fit --shards $(OPEN_SHARDS) --leave-out PatchCamelyon $(OPEN_RUN) --backbone efficientnet_lite0 \
		--size 64 --batch 32 --iterations 40 --lr 1e-4 --tau 5 --log-every 5
	$(BIN)/mtrain transfer --mode svm $(OPEN_RUN)
	$(BIN)/mtrain transfer --mode svm $(OPEN_RUN) --weights imagenet
	$(BIN)/mtrain report $(OPEN_RUN)

demo/sources/%: | .venv/demo
	$(BIN)/dpconvert fake $* --out demo/sources

test: .venv/test rules  ## lint, and every test but the long ones
	$(MAKE) --no-print-directory --jobs 2 types suite

suite: .venv/test
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal $(TESTS)

check: .venv/test lint  ## lint, and the tests of what differs from the commit BASE (HEAD); BASE=main: of a branch
	tests=$$($(BIN)/python -m tests.changed $(BASE)) || exit 1; \
	if [ -z "$$tests" ]; then echo "no test depends on what differs from $(BASE)"; \
	else OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal $$tests; fi

lint: rules types  ## ruff (rules and format), mypy strict

rules: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/test
	$(BIN)/mypy

format: .venv/test  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

stress: .venv/test  ## the tests that take minutes
	OMP_NUM_THREADS=1 $(BIN)/pytest -m stress $(TESTS)

lowest: .venv/test  ## the tests with the oldest packages that pyproject.toml allows; their warnings are no errors
	$(UV) venv --quiet --clear .venv/lowest
	$(UV) pip install --quiet --python .venv/lowest/bin/python --resolution lowest-direct --only-binary :all: \
		--requirements pyproject.toml $(USERS:%=--extra %)
	$(UV) pip install --quiet --python .venv/lowest/bin/python --editable ".[train,timm,demo,dev]"
	OMP_NUM_THREADS=1 .venv/lowest/bin/pytest -n auto --dist worksteal -W default $(TESTS)

gpu: .venv/test  ## what only a GPU can show: its tests, and iterations beside bare loops, in some minutes
	$(BIN)/pytest -m cuda tests/mtrain/test_cuda.py
	$(BIN)/python benchmarks/step/compare.py --device cuda --rounds 1 --steps 20

gpu-bench: .venv/test  ## all benchmarks of a GPU: iterations and their pieces, features, sweeps; a quarter of an hour
	$(BIN)/python benchmarks/step/compare.py --device cuda
	$(BIN)/python benchmarks/step/pieces.py
	$(BIN)/python benchmarks/features/compare.py --device cuda
	$(BIN)/python benchmarks/sweep/compare.py --device cuda --jobs 1 4 --cells 4 --iterations 100

bench: .venv/test  ## the benchmarks, each beside its peer
	$(BIN)/python benchmarks/svm/compare.py
	$(BIN)/python benchmarks/step/compare.py
	$(BIN)/python benchmarks/step/compare.py --dense 5
	$(BIN)/python benchmarks/features/compare.py
	$(BIN)/python benchmarks/slides/compare.py
	$(BIN)/python benchmarks/loader/compare.py
	$(BIN)/python benchmarks/loader/parts.py
	$(BIN)/python benchmarks/loader/masks.py

docs: .venv/test  ## write the generated pages, build the site into site/, check its links
	for writer in docs/write_*.py; do $(BIN)/python $$writer || exit 1; done
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

pictures: .venv/test  ## draw the pictures of the documentation: runs the tutorial, needs Chromium
	$(BIN)/python docs/pictures.py

clean:  ## remove the environment and what the demo made
	rm -rf .venv demo runs/demo runs/demo-open

.venv/uv:
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 or newer is needed; name one with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@touch $@

.venv/demo: .venv/uv pyproject.toml constraints.txt
	$(UV) pip install --quiet --constraint constraints.txt --editable ".[train,timm,demo]"
	@touch $@

.venv/test: .venv/uv pyproject.toml constraints.txt
	$(UV) pip install --quiet --constraint constraints.txt --editable ".[train,timm,demo,dev]"
	@touch $@
