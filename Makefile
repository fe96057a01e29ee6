# The two commands of README: `make run` and `make test`. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup run test lint browser docs pictures soak clean

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

test: lint browser
	$(BIN)/pytest --numprocesses 2 --dist loadfile

docs: setup
	$(BIN)/mkdocs build --quiet

# The pictures of docs/dashboard.md, in minutes.
pictures: setup browser
	$(BIN)/python docs/pictures/take.py

# Hours: every kill point, many lives, long histories.
soak: setup browser
	$(BIN)/pytest --soak -m soak --timeout 7200

clean:
	rm -rf .venv build dist
