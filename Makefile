# make demo   find the function layers of the embedded model (sets up .venv first)
# make test   run the tests                                  (likewise)
# make docs   build the documentation site into site/; a broken link fails
# make smol   build the small model around a pretrained language model: the name smol in every command (a minute)
# make newcomer   run the commands of the README, one by one, in a fresh clone; NEWCOMER='--environment .venv' uses this one
# make lock   write constraints.txt anew from pyproject.toml, which needs uv; UPGRADE=1 takes the newest versions
# make arms   train the arms of the controlled experiment on the embedded model (about 20 minutes)
# make select-experiment   the selection experiment on the embedded model (hours; it can be stopped and goes on)

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
WORKERS ?= 2
# uv where it is installed, in a fraction of pip's time; it does not read pip's settings, and `make UV=` goes with pip.
UV ?= $(shell command -v uv 2>/dev/null)
INSTALL ?= $(if $(UV),'$(UV)' pip install --quiet --python $(BIN)/python,$(BIN)/python -m pip install --quiet)

# Every process that a test starts would compile the library anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo smol docs arms select-experiment test test-slow quality style bench newcomer lock clean

demo: $(STAMP)
	$(BIN)/vfl locate --out demo --pairs 60 --overwrite

smol: $(STAMP)
	$(INSTALL) --editable '.[smol]' --constraint constraints.txt
	$(BIN)/python -m vfl.testbeds.smol.build

arms: $(STAMP)
	test -d runs/words || $(BIN)/python -m vfl.testbeds.micro.words --out runs/words
	$(BIN)/vfl arms recipes/micro/sft.yaml --seeds 5 --jobs 2 --out runs/micro/arms

select-experiment: $(STAMP)
	$(BIN)/python -m experiments.selection.experiment --out runs/selection

# Not --quiet: what --strict counts are the warnings that are logged.
docs: $(STAMP)
	OMP_NUM_THREADS=1 NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow and not gpu"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -m "slow and not gpu"

quality: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(MAKE) docs

style: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/python bench/locate.py
	OMP_NUM_THREADS=1 $(BIN)/python bench/train_step.py
	OMP_NUM_THREADS=1 $(BIN)/python bench/score.py

newcomer:
	$(PYTHON) bench/newcomer.py $(NEWCOMER)

# Of every Python and system that is supported. What is pinned stays as it is where that is possible.
lock:
	'$(or $(UV),uv)' pip compile --quiet --universal --no-annotate --python-version 3.11.5 --all-extras --group dev --group docs \
		$(if $(UPGRADE),--upgrade) --custom-compile-command 'make lock' --output-file constraints.txt pyproject.toml

clean:
	rm -rf demo site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:3]; sys.exit(None if (3, 11, 5) <= v < (3, 14) else f"Python 3.11.5 to 3.13 is needed, {v[0]}.{v[1]}.{v[2]} was found: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(if $(UV),,$(BIN)/python -m pip install --quiet --upgrade pip)
	PYTHONWARNINGS=ignore $(INSTALL) --editable '.[train,deepspeed,select,app]' --group dev --group docs --constraint constraints.txt
	touch $(STAMP)
