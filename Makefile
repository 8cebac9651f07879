python := .venv/bin/python
bin := .venv/bin

.PHONY: check static format format-check lint types imports proto proto-check unit lock

check: $(bin)/ruff ## the one definition of clean; under a minute
	@$(MAKE) --no-print-directory -j2 static unit

$(bin)/ruff: ## what the checks need, once
	@./run.sh test --help >/dev/null

static: format-check lint types imports proto-check

format: ## rewrite the sources
	@$(bin)/ruff format -q . && $(bin)/ruff check -q --fix .

format-check:
	@$(bin)/ruff format -q --check . || { echo "not formatted: run 'make format'" >&2; exit 1; }

lint:
	@$(bin)/ruff check -q .

types:
	@$(bin)/mypy

imports:
	@$(bin)/lint-imports --cache-dir .import_linter_cache >.import_linter.log 2>&1 || { cat .import_linter.log; exit 1; }

proto: ## regenerate the stubs
	@protos/generate_proto.sh

proto-check:
	@protos/generate_proto.sh --check

pin = uv pip compile --quiet --universal --python-version 3.10 --no-annotate --no-header --no-emit-index-url
# torch's accelerator packages follow from torch, so that a CPU build brings none; Windows is no platform of ours.
ours = grep -vE '^(nvidia-|cuda-|triton)|win32' .pins | LC_ALL=C sort

lock: ## pin what requirements*.in name; what is pinned already stays where it can
	@cp requirements.txt .pins && $(pin) requirements.in --output-file .pins
	@{ head -n 1 requirements.txt; $(ours); } > .pins.new && mv .pins.new requirements.txt
	@cat requirements-dev.txt >> .pins && $(pin) requirements-dev.in --output-file .pins
	@{ head -n 2 requirements-dev.txt; $(ours) | grep -vxFf requirements.txt; } > .pins.new && mv .pins.new requirements-dev.txt
	@rm .pins

unit:
	@$(python) -m pytest -q tests/unit
