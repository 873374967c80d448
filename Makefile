# make demo   install, index the docstrings of the standard library, ask three questions
# make test   install with the test tools, run the tests, the same ones every time
# make test-all  the slow tests too
# make fuzz   run the tests that find new cases with a random seed; SEED=N repeats one
# make check  ruff, mypy, tests: what a change has to pass
# make bench-speed  speed against others, in about 10 minutes on 2 idle cores (docs/speed.md)
# make regressions  the scores that the docs quote, made again on DATA=FOLDER; UPDATE=1 writes them
# make clean  remove the environment, the demo index and the caches in this folder
#
# Needs Python 3.11 or newer (choose one with PYTHON=python3.12) and make, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
REQUIREMENTS := pyproject.toml constraints.txt hatch_build.py $(wildcard embedder/engine/*.[ch])
# Two processes; a file's tests stay in one, with what they share.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 0 --durations=30
SEED := $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')
INDEX := demo-index
MODEL := embedder/models/builtin_models/millpond-135m/millpond.json
# The default model, with less of each text: docstrings say most in their first sentence.
DEMO_MODEL := millpond-135m,max_tokens=48
SPEED_MODEL := millpond-135m,max_tokens=128

# A folder of your own data with beir/scifact/corpus.jsonl and sts/STSB-train.tsv, for bench-speed;
# for regressions with the sets that benchmarks/lab/regressions.toml names.
DATA ?= ../shared/data

.PHONY: help demo test test-all test-slow fuzz check bench-speed regressions clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: $(INDEX)/manifest.json
	@set -e; for question in \
	    "delete a folder and everything in it" \
	    "measure how long a piece of code takes" \
	    "compare two texts line by line"; do \
	  echo; \
	  echo "\$$ millpond search $(INDEX) \"$$question\" -k 3"; \
	  $(BIN)/millpond search $(INDEX) "$$question" -k 3; \
	done

# Made again where the built-in model or its name here has changed.
$(INDEX)/manifest.json: $(MODEL) Makefile | $(VENV)/.installed
	@echo "\$$ millpond index python-stdlib --out $(INDEX) --model $(DEMO_MODEL) --whole"
	@$(BIN)/millpond index python-stdlib --out $(INDEX) --model $(DEMO_MODEL) --whole $(if $(wildcard $@),--overwrite)

test: $(VENV)/.installed-test
	$(PYTEST) -m "not slow"

test-all: $(VENV)/.installed-test
	$(PYTEST)

# What test-all has more than test: for .ci/run, which runs both.
test-slow: $(VENV)/.installed-test
	$(PYTEST) -m slow

fuzz: $(VENV)/.installed-test
	@echo "make fuzz SEED=$(SEED)"
	$(PYTEST) -m fuzz --hypothesis-profile=fuzz --hypothesis-seed=$(SEED)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) -m "not slow"

# Messages go to stderr, tables to stdout: make -s bench-speed > tables.md
bench-speed: $(VENV)/.installed-test
	@if [ -f "$(DATA)/beir/scifact/corpus.jsonl" ]; then \
	  $(BIN)/python -m benchmarks.lab.speed.encode "$(DATA)" --seconds 200; \
	else \
	  echo "Left out: the comparison with other libraries, since $(DATA)/beir/scifact is not there; type DATA=FOLDER" >&2; \
	fi
	@echo
	@$(BIN)/python -m benchmarks.lab.speed.end_to_end python-stdlib --model $(SPEED_MODEL) --documents 500 --seconds 120
	@echo
	@$(BIN)/python -m benchmarks.lab.speed.indexing overhead --rounds 3 --seconds 30
	@echo
	@$(BIN)/python -m benchmarks.lab.speed.indexing throughput --documents 20000 --rounds 2 --seconds 40

# ONLY=NAME for one model of the table alone.
regressions: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks.lab.regressions "$(DATA)" $(if $(UPDATE),--update) \
	  $(if $(ONLY),--model "$(ONLY)")

$(VENV)/.created:
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "Error: $(PYTHON) was not found; install Python 3.11 or newer, or type: make PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Error: $(PYTHON) is $$("$(PYTHON)" -V 2>&1), but Python 3.11 or newer is needed; type: make PYTHON=python3.11" >&2; exit 1; }
	@echo "Making $(VENV) with $$("$(PYTHON)" -V 2>&1)"
	@"$(PYTHON)" -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created $(REQUIREMENTS)
	@echo "Installing millpond into $(VENV) (a few minutes the first time)"
	@$(PIP) -e '.[cpu]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.created $(REQUIREMENTS)
	@echo "Installing millpond with the test tools into $(VENV) (a few minutes the first time)"
	@$(PIP) -e '.[cpu,qdrant,ray,serve,sentence-transformers,bench,mteb,test]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: $(VENV)/.created $(REQUIREMENTS)
	@echo "Installing millpond with the developer tools into $(VENV) (a few minutes the first time)"
	@$(PIP) -e '.[cpu,qdrant,ray,serve,sentence-transformers,bench,mteb,dev]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-test

clean:
	rm -rf $(VENV) $(INDEX) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build
