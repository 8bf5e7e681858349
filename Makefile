PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
GPU_VENV := .venv-gpu

.PHONY: demo check test test-all lint plan-gpu clean

demo: $(INSTALLED)
	$(BIN)/python main.py --mode=train --config=configs/synthetic.py:small_strong --workdir=runs/demo

# What compiles no model: for the time between two edits.
FAST := tests/test_layers.py tests/test_configs.py tests/test_docs.py tests/test_extending_page.py \
	tests/input_pipeline tests/kamcl_jax/config/test_fields.py tests/kamcl_jax/ranking \
	tests/kamcl_jax/weights $(addprefix tests/kamcl_jax/step/test_, \
	augmentation.py losses.py momentum.py schedule.py)

check: lint
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile $(FAST)

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder

# With the long matrices of sizes, precisions and devices.
test-all: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder -m ""

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Compiles a training step for an H100 that need not be there: 50 s. NVIDIA's compiler takes 4.6 GB,
# so it has an environment of its own.
plan-gpu: $(GPU_VENV)/.installed
	$(GPU_VENV)/bin/python examples/accelerator_plan.py --config=configs/rsicd.py --accelerator=h100

clean:
	rm -rf $(VENV) $(GPU_VENV) runs data

# Written last, so that an interrupted installation is taken up again.
$(INSTALLED): requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

$(GPU_VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(GPU_VENV)
	$(GPU_VENV)/bin/python -m pip install --quiet --requirement requirements.txt "jax[cuda13]"
	touch $@
