# `make demo` and `make test` on a machine with Python 3.11+, make and git; all else they install.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
REPORT := experiments/test_SPAN_demo/results/report/index.html

.PHONY: demo test benchmark lint clean

demo: $(VENV)/installed
	$(BIN)/restore prepare demo
	$(BIN)/python train.py -opt options/train_SPAN_demo.yml --auto_resume
	$(BIN)/python test.py -opt options/test_SPAN_demo.yml
	@echo
	@echo "Open $(REPORT) in a browser."

test: $(VENV)/tested
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/tested
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright

benchmark: $(VENV)/installed
	$(BIN)/python benchmarks/span.py
	$(BIN)/python benchmarks/networks.py
	$(BIN)/python benchmarks/progressive.py
	$(BIN)/python benchmarks/load.py --quick

$(VENV)/installed: requirements.txt setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --config-settings editable_mode=compat -e .
	@touch $@

$(VENV)/tested: $(VENV)/installed requirements-test.txt
	$(BIN)/python -m pip install --quiet -r requirements-test.txt
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis
