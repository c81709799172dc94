# Everything a fresh machine needs: `make demo` runs the main job, `make test` the tests.
PYTHON ?= python3
VENV   ?= .venv
PIP    := $(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt

# XLA on a CPU asks for its scratch memory anew at every step, and the page faults of getting it take
# a sixth of a small network's step: huge pages make them few.
HUGE_PAGES := GLIBC_TUNABLES=glibc.malloc.hugetlb=1

.PHONY: demo test test-faces lint docs clean

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "flashface-jax needs Python 3.11 or newer; name one with: make PYTHON=python3.12"; exit 1; }
	@echo "Creating $(VENV) and installing flashface-jax with the versions in constraints.txt ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo "Installing what the tests need (pytest, torch, ruff, mypy) ..."
	@$(PIP) -e '.[dev]'
	@touch $@

demo: $(VENV)/installed  ## train a small FlashFace on drawn people, then draw held-out ones
	@$(HUGE_PAGES) $(VENV)/bin/python -m flashface_jax.demo --out demo

test: $(VENV)/installed-dev  ## the whole default suite, two processes
	@echo "Running the tests ..."
	@$(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# In an environment of its own: insightface brings an OpenCV that needs a display's libraries, which
# the headless one replaces; Apache Beam asks for older versions of four packages, and runs with
# the Pillow whose pixels the tests know.
BEAM_MINDS := beartype|pillow|protobuf|pyarrow
$(VENV)-faces/installed: pyproject.toml constraints.txt
	@echo "Creating $(VENV)-faces with insightface and Apache Beam, to test the curation of photos ..."
	@$(PYTHON) -m venv $(VENV)-faces
	@grep -vE '^($(BEAM_MINDS))==' constraints.txt > $(VENV)-faces/constraints.txt
	@$(VENV)-faces/bin/pip install --quiet --disable-pip-version-check \
	  -c $(VENV)-faces/constraints.txt -e '.[dev,curation]' onnx
	@$(VENV)-faces/bin/pip install --quiet --disable-pip-version-check -c constraints.txt \
	  --force-reinstall --no-deps opencv-python-headless pillow
	@touch $@

test-faces: $(VENV)-faces/installed  ## what needs insightface or Beam, which the default suite skips
	@$(VENV)-faces/bin/python -m pytest -n 2 --dist loadfile tests/faces tests/curation \
	  tests/data/test_build.py

lint: $(VENV)/installed-dev  ## style, formatting, types, and which way imports flow
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

$(VENV)/installed-docs: $(VENV)/installed
	@echo "Installing what the documentation site needs (MkDocs) ..."
	@$(PIP) -e '.[docs]'
	@touch $@

# Strict: a link to nowhere or a docstring that does not fit its function fails the build. Not -q,
# which would hide warnings from the strict mode, too; so a line for each module is left out here.
docs: $(VENV)/installed-docs  ## the documentation site, into site/
	@bash -o pipefail -c 'NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build 2>&1 | \
	  { grep -v "api-autonav: " || true; }'

clean:
	rm -rf $(VENV) $(VENV)-faces site
