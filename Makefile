# The two commands of README: `make run` and `make test`. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup run test lint browser nginx docs pictures soak clean

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

run: setup
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

# What deploy/ ships is tested with Debian's nginx, and with systemd's own check of unit files.
nginx:
	@{ PATH="$$PATH:/usr/sbin" command -v nginx && command -v systemd-analyze; } >/dev/null || \
	{ $(SUDO) apt-get update -qq && DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -qq -y --no-install-recommends \
	  nginx-light systemd >/dev/null; }

test: lint browser nginx
	$(BIN)/pytest --numprocesses 2 --dist loadfile

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
