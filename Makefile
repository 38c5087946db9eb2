# `make` alone lists the targets. Everything is installed into .venv and written below data/.
.DEFAULT_GOAL := help
.PHONY: help run test test-containers lint types tests coverage plain serve train promote ui sign spec publish check rank invoke build budget bench bench-check bench-competitors load plan doctor release rollback status tail dashboard fuzz chaos soak feast lock licences clean

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SCANNERS := .venv-scan/.ready
# The first Python that is new enough; set PYTHON to choose another.
PYTHON ?= $(firstword $(foreach p,python3 python3.11 python3.12 python3.13 $(wildcard $(HOME)/.pyenv/versions/3.1*/bin/python),\
	$(if $(shell $(p) -c 'import sys; print(sys.version_info >= (3, 11) or "")' 2>/dev/null),$(p))))
PIP := python -m pip --no-cache-dir --disable-pip-version-check --quiet
# Only the listed files, each verified by its hash.
LOCKED := $(PIP) install --no-deps --require-hashes --requirement
# $(call locked_with_torch,ENVIRONMENT,LIST): torch first, because pip checks the hash of a wheel in a
# PIP_FIND_LINKS directory only if that is the only candidate, and otherwise prefers PyPI's, with CUDA. The
# CUDA libraries that PyPI's torch needs come last, from the GPU image's list.
define locked_with_torch
	@$1/bin/$(PIP) download --no-deps --dest $1/torch $(TORCH)
	@sed -n '/^torch==/,/[^\\]$$/p' $2 > $1/torch.txt
	@$1/bin/$(LOCKED) $1/torch.txt --no-index --find-links $1/torch
	@rm -r $1/torch $1/torch.txt
	@$1/bin/$(LOCKED) $2
	@sed -n '/^nvidia/,/[^\\]$$/p' infra/images/gpu/requirements.txt > $1/cuda.txt
	@! grep -Eq '^Requires-Dist: (cuda|nvidia)' $1/lib/python3.*/site-packages/torch-*.dist-info/METADATA || \
		$1/bin/$(LOCKED) $1/cuda.txt
	@rm $1/cuda.txt
endef
TORCH := $(shell sed -n 's/^\(torch==[0-9.]*\).*/\1/p' requirements-dev.lock)

help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

run: $(READY)  ## Train the demo model, publish it, serve it on the local Lambda, show a response
	$(BIN)/feedrank run $(ARGS)

test: lint types tests plain  ## Everything that CI checks

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

tests: $(READY) $(SCANNERS)
	$(BIN)/python -m pytest $(ARGS)

# What a request goes through; its tests run twice.
APP_TESTS := adapter direct errors handler openapi predict predict_problems request_line routes
plain: $(READY)  ## Test the app with every shortcut of function/feedrank/shortcuts.py switched off
	PYTHONPATH=tests:function $(BIN)/python -m pytest -p without_shortcuts $(APP_TESTS:%=tests/unit/test_%.py) $(ARGS)

coverage: $(READY)  ## Run the unit tests, and fail where they miss more of function/feedrank than allowed
	$(BIN)/python -m pytest tests/unit --cov=feedrank $(ARGS)

fuzz: $(READY)  ## Send 10,000 generated requests per operation, events and rankings; CASES=2000 for fewer
	FUZZ_CASES=$(or $(CASES),10000) $(BIN)/python -m pytest $(wildcard tests/long/test_fuzz*.py) $(ARGS)

chaos: $(READY)  ## Break S3, Firehose, DynamoDB, disks, clocks and processes, and check the responses meanwhile
	CHAOS_FAULTS=all $(BIN)/python -m pytest tests/long/test_chaos.py tests/long/test_feature_chaos.py $(ARGS)

soak: $(READY)  ## Load servers at 80 % of saturation for 10 minutes each (SECONDS=60 for less); 50 environments
	SOAK_SECONDS=$(or $(SECONDS),600) $(BIN)/python -m pytest tests/long/test_soak.py tests/long/test_plan.py $(ARGS)

test-containers: $(READY)  ## Test `sam local`, the Lambda image, the CPU image and GPU_IMAGE; needs Docker or Podman
	$(BIN)/python -m pytest tests/containers $(ARGS)

serve: $(READY)  ## Serve the trained model, as `run` does, without training
	$(BIN)/feedrank serve $(ARGS)

train: $(READY)  ## Train and register the demo model
	$(BIN)/feedrank train $(ARGS)

promote: $(READY)  ## Compare a version with the production version, and replace that: ARGS="3"
	$(BIN)/feedrank promote $(ARGS)

ui: $(READY)  ## Open the MLflow UI: runs, metrics, models
	$(BIN)/feedrank ui $(ARGS)

sign: $(READY)  ## Sign a model in MLflow: make sign ARGS="models:/feed_ranker@production --key key.pem"
	$(BIN)/feedrank sign $(ARGS)

spec: $(READY)  ## Draft or explain a feature spec: make spec ARGS="--check spec.json"
	$(BIN)/feedrank spec $(ARGS)

publish: $(READY)  ## Publish a model: make publish ARGS="models:/feed_ranker@production --to s3://..."
	$(BIN)/feedrank publish $(ARGS)

check: $(READY)  ## Check a bundle as a container does: make check ARGS="data/bundles/... --expect scores.parquet"
	$(BIN)/feedrank check $(ARGS)

rank: $(READY)  ## Rank items for a user: make rank ARGS="--user 123 --items 1001,1002,1003"
	$(BIN)/feedrank rank $(ARGS)

invoke: $(READY)  ## Send one event: make invoke ARGS="-e events/predict.json"
	$(BIN)/feedrank invoke $(ARGS)

build: $(READY)  ## Build the stack with SAM, without Docker; publish to layers/model/bundle first
	$(BIN)/feedrank build $(ARGS)

budget: $(READY)  ## Show the build's size against Lambda's limit
	$(BIN)/feedrank budget $(ARGS)

bench: $(READY)  ## Measure every figure in the README; run `make bench-competitors` first for comparisons
	$(BIN)/feedrank bench $(ARGS)

bench-check: $(READY)  ## Measure, and report what got slower than the committed baseline
	$(BIN)/feedrank bench --check $(ARGS)

load: $(READY) .venv-load/.ready  ## Load the local Lambda with Locust: 100 requests/s, saturation, overload
	$(BIN)/feedrank load $(ARGS)

plan: $(READY)  ## Say what a rate of requests needs and costs: make plan ARGS="--rate 2000 --curve daily"
	$(BIN)/feedrank plan $(ARGS)

doctor: $(READY)  ## Find what would stop a deploy or a release: make doctor ARGS="--config-env prod"
	$(BIN)/feedrank doctor $(ARGS)

release: $(READY)  ## Release the production model: make release ARGS="--stack feedrank-prod --dry-run"
	$(BIN)/feedrank release $(ARGS)

rollback: $(READY)  ## Stop a release, or serve an earlier version: make rollback ARGS="--stack feedrank-prod"
	$(BIN)/feedrank rollback $(ARGS)

status: $(READY)  ## Show what a stack serves: make status ARGS="--stack feedrank-prod"
	$(BIN)/feedrank status $(ARGS)

tail: $(READY)  ## Show requests and decisions as they come; of a stack with ARGS="--stack feedrank-prod"
	$(BIN)/feedrank tail $(or $(ARGS),--local)

dashboard: $(READY)  ## Draw the CloudWatch dashboard from the logs of `make run`, or of ARGS="--metrics FILE"
	$(BIN)/feedrank dashboard $(or $(ARGS),$(addprefix --metrics ,$(wildcard data/logs/port-8000/environment-*.log)))

feast: .venv-feast/.ready  ## Install Feast's SDK, so that tests compare with its answers
.venv-feast/.ready: tests/feast_store/requirements.txt
	@echo "Installing Feast's SDK into .venv-feast: about a minute"
	@$(PYTHON) -m venv .venv-feast
	@.venv-feast/bin/$(LOCKED) $<
	@touch $@

# Locust only: the other servers would bring all of their dependencies.
.venv-load/.ready: infra/feedbench/load/requirements.txt
	@echo "Installing Locust into .venv-load: a few seconds"
	@$(PYTHON) -m venv .venv-load
	@.venv-load/bin/$(LOCKED) $<
	@touch $@

bench-competitors: .venv-bench/.ready  ## Install the servers that the benchmark compares with
.venv-bench/.ready: infra/feedbench/competitors/requirements.txt
	@echo "Installing the servers to compare with into .venv-bench: minutes"
	@$(PYTHON) -m venv .venv-bench
	$(call locked_with_torch,.venv-bench,$<)
	@touch $@

$(READY): requirements-dev.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "feedrank needs Python 3.11 or later; set PYTHON=/path/to/python"; exit 1; }
	@echo "Creating $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing the packages of requirements-dev.lock: two minutes, or more if torch brings CUDA"
	$(call locked_with_torch,$(VENV),requirements-dev.lock)
	@$(BIN)/$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# checkov pins other versions of packages that the project uses, so it has an environment of its own.
$(SCANNERS): tests/stack/checkov.txt
	@echo "Installing checkov, which scans the templates, into .venv-scan: about a minute"
	@$(PYTHON) -m venv .venv-scan
	@.venv-scan/bin/$(LOCKED) $<
	@touch $@

lock:  ## Resolve requirements-dev.lock and every other list of packages again, with hashes
	.ci/lock $(PYTHON)

licences: $(READY)  ## Write the lists of licences of everything that is deployed
	$(BIN)/python -m feedops.stack.sbom

clean:  ## Remove the environment and all local data
	rm -rf .venv* data .aws-sam *.egg-info .mypy_cache .pytest_cache .ruff_cache
