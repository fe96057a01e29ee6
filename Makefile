# The commands of README: `make run`, `make check` and `make test`. Each sets up what it needs of .venv first.
PYTHON ?= python3
BIN := .venv/bin
# Modules are compiled when they are first imported, and kept: most of what torch brings never is.
export PYTHONDONTWRITEBYTECODE :=
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable

.PHONY: setup run check test lint browser nginx docs pictures soak clean

# What a run needs.
.venv/run: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) '.[digits,hub,plots]'
	touch $@

# Everything.
.venv/all: .venv/run
	$(INSTALL) '.[dev]'
	touch $@

setup: .venv/all

run: .venv/run
	$(BIN)/kuber run --preset quick

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The dashboard is tested in a real browser, Debian's Chromium, which is installed where none is.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	{ $(SUDO) apt-get update -qq && DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -qq -y --no-install-recommends \
	  chromium fonts-dejavu-core >/dev/null; }

# What deploy/ ships is tested with Debian's nginx, and with systemd's own check of unit files; the pages' commands
# make certificates with openssl.
nginx:
	@{ PATH="$$PATH:/usr/sbin" command -v nginx && command -v systemd-analyze && command -v openssl; } >/dev/null || \
	{ $(SUDO) apt-get update -qq && DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -qq -y --no-install-recommends \
	  nginx-light systemd openssl >/dev/null; }

# Two workers for two cores; `make test WORKERS=8` where there are more.
WORKERS := 2
PYTEST := $(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

# The fast lane: style, types, layers, and every test that starts no process. See tests/fixtures/processes.py.
check: lint
	$(PYTEST) -m 'not process'

# Everything: also browser, nginx, Ray, database servers, and the product's own processes.
test: lint browser nginx
	$(PYTEST)

docs: setup
	$(BIN)/mkdocs build --quiet

# The pictures of docs/dashboard.md, in minutes.
pictures: setup browser
	$(BIN)/python docs/pictures/take.py

# Hours: every kill point, many lives, long histories.
soak: setup browser nginx
	$(BIN)/pytest --soak -m soak --timeout 7200

clean:
	rm -rf .venv build dist
