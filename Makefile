# Each target sets up what it needs; a fresh clone, Python 3.11, Java 17 and a package registry are enough.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: env demo test quick lint bench bench-scoring bench-training package clean help
help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

env: $(READY)  ## build .venv from requirements.lock, with Delta's jars beside Spark's

$(READY): requirements.lock setup.cfg pyproject.toml $(wildcard tools/*)
	@PYTHON="$(PYTHON)" bash tools/setup_env.sh $(VENV)
	@touch $@

demo: env  ## the whole loop on MovieLens, in some minutes, into demo-out/
	@$(BIN)/python demo/run.py

test: env  ## everything, on real Spark, Delta, Petastorm, MLflow, Airflow and ranks
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

quick: env  ## rooms and transforms alone: what needs no whole job
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n 2 --dist loadfile -m "not fault"

lint: env  ## ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: bench-scoring  ## ours beside peers', one run, as ratios

bench-scoring: env .venv-peers/.ready  ## the Top-N kernel and score_topn beside the bare product, faiss, implicit and Spark ML
	@$(BIN)/python benchmarks/topn_kernel.py .venv-peers/bin/python
	@$(BIN)/python benchmarks/topn_job.py
	@$(BIN)/python benchmarks/score_job.py

bench-training: env .venv-peers-training/.ready  ## DATA=Beauty.txt.gz: training beside RecTools' and RePlay's, to the same quality
	@test -n "$(DATA)" || { echo "make bench-training: DATA=Beauty.txt.gz is missing (benchmarks/training.py)" >&2; exit 1; }
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/training.py $(DATA) $(if $(ATTRIBUTES),--attributes $(ATTRIBUTES)) \
		--peers .venv-peers-training/bin/python

.venv-peers/.ready: benchmarks/peers.txt
	@$(PYTHON) -m venv .venv-peers && .venv-peers/bin/pip install -q -r $<
	@touch $@

.venv-peers-training/.ready: benchmarks/peers-training.txt
	@$(PYTHON) -m venv .venv-peers-training && .venv-peers-training/bin/pip install -q -r $<
	@touch $@

package: dist/headwater.zip  ## the library as a zip for spark-submit --py-files

dist/headwater.zip: $(shell find lib/headwater -type f -not -name '*.pyc')
	@mkdir -p dist && rm -f $@ && cd lib && $(if $(wildcard $(BIN)/python),../$(BIN)/python,$(PYTHON)) -m zipfile -c ../$@ headwater

clean:  ## remove what was built, not .venv
	@rm -rf dist demo-out build .pytest_cache .ruff_cache .mypy_cache
