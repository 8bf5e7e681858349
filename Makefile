PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-all lint clean

demo: $(INSTALLED)
	$(BIN)/python main.py --mode=train --config=configs/synthetic.py --workdir=runs/demo

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder

# With the long matrices of sizes, precisions and devices.
test-all: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder -m ""

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) runs data

# Written last, so that an interrupted installation is taken up again.
$(INSTALLED): requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@
