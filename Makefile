# The one door: everything a developer, a user or CI runs. `make bench NAME=FILE ARGS='…'` runs one of benchmarks/.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# The code that differential tests compare with; it asks for packages that these tests do without.
REFERENCE := ofa==0.1.0.post202307202001
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: setup check test demo serve bench clean

setup: $(VENV)/.dev

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# A file at a time on every core.
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --dist loadfile

demo: $(VENV)/.run
	$(BIN)/python examples/demo.py

serve: $(VENV)/.run
	$(BIN)/tailor serve

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/$(NAME).py $(ARGS)

clean:
	rm -rf $(VENV)

# What the demo and the service need; the tools of `make check` and `make test` come on top.
$(VENV)/.run: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade 'pip>=25.1'
	$(PIP) -c constraints.txt -e '.[serve,export,agent]'
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) -c constraints.txt -e '.[dev]'
	$(PIP) --no-deps $(REFERENCE)
	touch $@
