# make book   set up, draw the demo corpora, train, make tables and figures, build the site
# make test   set up, check style, run the tests and compare every notebook with its stored outputs
# make test-slurm   train two small models through a Slurm that is started for it (root; slurm-wlm)
# make test-browser   build the site and look at it, and at JupyterLab, in Chromium
# make audit  look all pinned versions up in the database of known vulnerabilities, https://osv.dev
# make lab    set up and open the notebooks in JupyterLab
# make site   set up and build the site from the notebooks' stored outputs
# make notebooks   execute the notebooks again and store their outputs
# make clean  remove what the above made, except runs (rows and weights) and downloaded data

# No path of the checkout is expanded by make: it may have spaces and quotes.
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || echo 2)
BIN := .venv/bin
INSTALLED := .venv/.installed

# Windows without developer mode, and Python's zipfile, write text files instead of symbolic links.
ifneq ($(shell test -f book/notebooks && echo file),)
$(error book/notebooks, book/_toc.yml and book/_config.yml are files, not symbolic links: unpack the \
    archive with unzip, or run `git config core.symlinks true`, remove the three, `git checkout -- book`)
endif

.PHONY: book test test-slurm test-browser audit lab site notebooks clean
.DELETE_ON_ERROR:

# Snakemake's own lock outlives a killed run; the system's does not.
FLOCK := $(if $(shell command -v flock 2>/dev/null),flock --verbose --nonblock build/.lock)
NOLOCK := $(if $(FLOCK),--nolock)

book: $(INSTALLED)
	mkdir -p build
	PATH="$$PWD/$(BIN):$$PATH" $(FLOCK) snakemake --profile workflow/profiles/demo --cores $(CORES) $(NOLOCK)
	@echo "The book: $$PWD/build/demo/book/_build/html/index.html"

test: $(INSTALLED)
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/pytest --nbval --nbval-sanitize-with tests/nbval_sanitize.cfg tests notebooks

# INSTALL=--install fetches Slurm by apt-get.
test-slurm: $(INSTALLED)
	PATH="$$PWD/$(BIN):$$PATH" $(BIN)/python tests/slurm/run.py $(INSTALL)

# INSTALL=--install fetches Chromium by apt-get.
test-browser: site
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[browser]'
	$(BIN)/pytest tests/browser $(INSTALL)

OSV := https://api.osv.dev

audit:
	@curl --silent --output /dev/null --max-time 30 $(OSV) \
	    || { echo "audit: $(OSV) cannot be reached from here, so no version was checked" >&2; exit 1; }
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/pip install --quiet pip-audit==2.10.1
	.venv/audit/bin/pip-audit --strict --vulnerability-service osv --disable-pip --requirement constraints.lock

site: $(INSTALLED)
	$(BIN)/jupyter-book build book/ -W -n --keep-going

NOTEBOOKS ?= $(sort $(wildcard notebooks/*.ipynb))
VOLATILE := metadata.papermill metadata.language_info.version metadata.widgets \
    cell.metadata.execution cell.metadata.papermill

notebooks: $(INSTALLED)
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace $(NOTEBOOKS)
	$(BIN)/jupyter nbconvert --coalesce-streams $(NOTEBOOKS)
	$(BIN)/nbstripout --keep-id --keep-output --keep-count --extra-keys "$(VOLATILE)" $(NOTEBOOKS)

# As root, JupyterLab wants --allow-root.
lab: $(INSTALLED)
	@echo "Autosave is off: changes are kept only if you save them (Ctrl+S)."
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) --LabApp.app_settings_dir=workflow/lab --LabApp.default_url=/lab/tree/notebooks/01_data_and_flow.ipynb

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
# LOCKED=1 also compares every file with its SHA-256, on the one platform of constraints.lock.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
ifdef LOCKED
	grep '^setuptools==' constraints.lock >.venv/backend.lock
	$(BIN)/pip install --quiet --require-hashes --no-deps --requirement .venv/backend.lock
	$(BIN)/pip install --quiet --require-hashes --no-deps --no-build-isolation --requirement constraints.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
else
	$(BIN)/pip install --quiet $$(grep '^torch==' constraints.txt)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[book,test,workflow]'
endif
	touch $(INSTALLED)
