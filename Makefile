# `make` lists the targets. Each first installs what it needs, and no more, into .venv.

PYTHON ?= python3
TORCH ?= torch
PIP_ARGS ?=
DATA ?= $(or $(PERCO_LITE_DATA),../shared/data)
ifneq ($(wildcard $(DATA)),)
export PERCO_LITE_DATA := $(abspath $(DATA))
endif
MINUTES ?= 60
# two processes, one thread each; a notebook or a file of tests stays in one of them
PYTEST_ARGS ?= -n 2 --dist loadfile
EVIDENCE_ARGS ?=
EVIDENCE_SHORT ?= --photos 2 --crop 256 --seeds 2 --training-steps 2 --training-photos 16 --processes 2
SITE_ARGS ?=
BIN := .venv/bin
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))

.DEFAULT_GOAL := help
.PHONY: help demo app lab test site site-check types wheel-check test-oldest notebooks notebooks-blank notebooks-knobs train caption-model bench evidence evidence-short clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo 'Variables: PYTHON=python3.12  TORCH="torch==2.13.0"  MINUTES=60  DATA=folder of photos'
	@echo 'Without an NVIDIA GPU a far smaller download will do on Linux:'
	@echo '  make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"'

demo: .venv/.core ## compress and decode the sample photos; files and pictures in out/demo/
	$(BIN)/perco demo

app: .venv/.app ## open the codec in a browser: photo, file, picture
	$(BIN)/perco app

lab: .venv/.notebooks ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab $(wildcard notebooks)

test: .venv/.test ## check the style, then run the tests (all that CI does)
	$(BIN)/ruff check .
	$(BIN)/python -m pytest $(PYTEST_ARGS)

site: .venv/.site ## build the site of course and code: build/site/html (SITE_ARGS="--photos 1")
	$(BIN)/python scripts/build_site.py $(SITE_ARGS)

site-check: .venv/.test site ## build the site, then try its links and pages, in a browser if there is one
	$(BIN)/python -m pytest -p no:cacheprovider tests/site

types: .venv/.dev ## check the types of core and coding
	$(BIN)/mypy

wheel-check: .venv/.dev ## build wheel and sdist, install each into an environment of its own, use them there
	$(BIN)/python scripts/try_wheel.py

test-oldest: .venv-oldest/.installed ## run the tests with the lowest releases that pyproject.toml allows
	.venv-oldest/bin/python -m pytest $(PYTEST_ARGS) tests

.venv-oldest/.installed: pyproject.toml scripts/oldest.py
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python scripts/oldest.py > $(@D)/constraints.txt
	$(@D)/bin/python -m pip install $(PIP_ARGS) -c $(@D)/constraints.txt -e ".[test]"
	@touch $@

notebooks: $(if $(NOTEBOOKS),.venv/.notebooks) ## run every notebook again and store its outputs
ifeq ($(NOTEBOOKS),)
	@echo "There are no notebooks yet: they come with the course, in notebooks/."
else
	$(BIN)/python scripts/course.py address $(NOTEBOOKS)
	$(BIN)/python scripts/course.py links $(NOTEBOOKS)
	$(BIN)/python scripts/course.py words $(NOTEBOOKS)
	$(BIN)/jupyter execute --inplace $(NOTEBOOKS)
	$(BIN)/nbstripout --keep-output --keep-count --keep-id \
	    --extra-keys "metadata.language_info cell.metadata.execution" $(NOTEBOOKS)
	$(BIN)/python scripts/course.py tidy $(NOTEBOOKS)
endif

notebooks-knobs: .venv/.notebooks ## run every notebook with other settings than it is stored with
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --settings knobs $(NOTEBOOKS)

notebooks-blank: .venv/.notebooks ## write notebooks/blank/: no outputs, no solutions
	$(BIN)/python scripts/course.py blank $(NOTEBOOKS)

train: .venv/.core ## train the two stages on DATA, MINUTES each
	@test -d "$(DATA)" || { echo "No folder $(DATA): make train DATA=folder" >&2; exit 1; }
	$(BIN)/perco train autoencoder --minutes $(MINUTES)
	$(BIN)/perco train codec --minutes $(MINUTES)

caption-model: .venv/.core ## count captions of DATA into the table that codes captions
	@test -d "$(DATA)" || { echo "No folder $(DATA): make caption-model DATA=folder" >&2; exit 1; }
	$(BIN)/perco train captions -o perco_lite/coding/caption_model.npz

bench: .venv/.core ## measure speed, memory and quality on this machine
	$(BIN)/perco bench

evidence: .venv/.metrics ## measure data/results/ anew: hours; EVIDENCE_ARGS="--only kodak", --list
	@test -d "$(DATA)" || { echo "No folder $(DATA): make evidence DATA=folder" >&2; exit 1; }
	$(BIN)/python scripts/measure.py $(EVIDENCE_ARGS)

# the claims: the middle of two photos of each set, trainings of two steps
evidence-short: .venv/.metrics ## try the whole chain of RQ1 to RQ5 and of the claims in minutes: out/short/
	$(BIN)/python scripts/measure.py --short $(EVIDENCE_ARGS)
	@if [ -d "$(DATA)" ]; then $(BIN)/perco claims -o out/short/claims $(EVIDENCE_SHORT); \
	    else echo "No folder $(DATA): the claims are not tried; make evidence-short DATA=folder"; fi

clean: ## remove out/ (checkpoints in it too) and the caches
	rm -rf out build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv, .venv-oldest
	rm -rf .venv .venv-oldest *.egg-info

# .venv/.core has the package alone, .venv/.NAME its extra NAME as well. An install that fails or is
# killed leaves .venv/.installing behind, and the next one then starts from an empty .venv.
# torch and the package go to pip together, so that nothing replaces the torch that was asked for.
.venv/.%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "perco_lite needs Python 3.10 or newer as $(PYTHON); try make PYTHON=python3.12" >&2; \
	    exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make a virtual environment; on Debian: apt install python3-venv" >&2; \
	    exit 1; }
	@if [ -e .venv/.installing ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	    $(PYTHON) -m venv --clear .venv; fi
	@touch .venv/.installing
	$(BIN)/python -m pip install $(PIP_ARGS) "$(TORCH)" -e ".$(if $(filter-out core,$*),[$*])"
	@mv .venv/.installing $@
