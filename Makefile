# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3.11
VENV := .venv
STAMP := $(VENV)/.installed

.PHONY: demo test unit lint

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable ".[dev]"
	touch $(STAMP)

demo: $(STAMP)
	test -d runs/demo-lines || $(VENV)/bin/steelshift synth --out runs/demo-lines --shift examples/noisy-camera.yaml \
		--images 900
	$(VENV)/bin/steelshift fit --source runs/demo-lines/source --target runs/demo-lines/target --out runs/demo \
		--size 96 --steps 700 --pretrain-steps 250 --resume

test: $(STAMP) lint
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist worksteal

unit: $(STAMP) lint
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist worksteal -m "not whole"

lint: $(STAMP)
	$(VENV)/bin/ruff check .
