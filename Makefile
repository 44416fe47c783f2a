# make book   set up, draw the demo corpora, train, make tables and figures, build the site
# make test   set up, check style, run the tests and compare every notebook with its stored outputs
# make test-slurm   train two small models through a Slurm that is started for it (root; slurm-wlm)
# make lab    set up and open the notebooks in JupyterLab
# make site   set up and build the site from the notebooks' stored outputs
# make notebooks   execute the notebooks again and store their outputs
# make clean  remove what the above made, except runs (rows and weights) and downloaded data

# Paths are relative, because the checkout's may have spaces.
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || echo 2)
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: book test test-slurm lab site notebooks clean
.DELETE_ON_ERROR:

# Snakemake's own lock outlives a killed run; the system's does not.
FLOCK := $(if $(shell command -v flock 2>/dev/null),flock --verbose --nonblock build/.lock)
NOLOCK := $(if $(FLOCK),--nolock)

book: $(INSTALLED)
	mkdir -p build
	PATH="$(CURDIR)/$(BIN):$$PATH" $(FLOCK) snakemake --profile workflow/profiles/demo --cores $(CORES) $(NOLOCK)
	@echo "The book: $(CURDIR)/build/demo/book/_build/html/index.html"

test: $(INSTALLED)
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/pytest --nbval --nbval-sanitize-with tests/nbval_sanitize.cfg tests notebooks

# INSTALL=--install fetches Slurm by apt-get.
test-slurm: $(INSTALLED)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/slurm/run.py $(INSTALL)

site: $(INSTALLED)
	$(BIN)/jupyter-book build book/ -W -n --keep-going

NOTEBOOKS ?= $(sort $(wildcard notebooks/*.ipynb))
VOLATILE := metadata.papermill metadata.language_info.version metadata.widgets \
    cell.metadata.execution cell.metadata.papermill

notebooks: $(INSTALLED)
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace $(NOTEBOOKS)
	$(BIN)/nbstripout --keep-output --keep-count --extra-keys "$(VOLATILE)" $(NOTEBOOKS)

lab: $(INSTALLED)
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks/01_data_and_flow.ipynb

# Never removes a row or a checkpoint. The clip store goes only if nothing but the demo can have used it.
DEMO_ONLY = [ -z "$$(find build data -mindepth 1 -maxdepth 1 ! -name demo ! -name store \
    ! -name README.md ! -name .lock 2>/dev/null)" ]

clean:
	@if $(DEMO_ONLY); then rm -rf data/store; else echo "kept: data/store, which other data use"; fi
	rm -rf .venv book/_build data/demo *.egg-info build/.lock
	@find build/demo -mindepth 1 -maxdepth 1 ! -name results -exec rm -rf {} + 2>/dev/null || true
	@rmdir build/demo build 2>/dev/null || true
	@find build -mindepth 1 -maxdepth 1 -type d -exec sh -c 'echo "kept: $$1, with \
	$$(find "$$1" -name row.json | wc -l) finished runs; remove it by hand"' sh {} \; 2>/dev/null || true

# torch goes first: with a torch that satisfies the constraint in place, nothing fetches another.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $$(grep '^torch==' constraints.txt)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[book,test,workflow]'
	touch $(INSTALLED)
