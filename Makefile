# One command list for people and CI. Needs only Python 3.11 to 3.13 and make.
#   make demo PYTHON=python3.12               another Python
#   make test PYTHON=python3.13 VENV=.venv313 a second environment

PYTHON ?= python3
VENV ?= .venv
CLIENTS ?= $(VENV)-clients
NVFOREST ?= $(VENV)-nvforest
RAY ?= $(VENV)-ray
SPARK ?= $(VENV)-spark
DEPLOY ?= $(VENV)-deploy
KAFKA ?= $(VENV)-kafka
REGISTRY ?= $(VENV)-registry
KUBERNETES ?= $(VENV)-kubernetes
GPU ?= $(VENV)-gpu
# One more than the cores: some tests wait, for a process or for time to pass; with two more, the same work takes longer.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2) + 1)
ARGS ?=
ONLY ?=
IMAGE := infra/deploy/image

.DEFAULT_GOAL := help
SHELL := /bin/sh
BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
OURS := skewless $(patsubst %,skewless-%,$(subst _,-,$(notdir $(wildcard plugins/* examples/*))))
COMPILE := $(BIN)/uv pip compile --universal --python-version 3.11 --no-emit-index-url --no-header --generate-hashes \
	$(OURS:%=--no-emit-package %)
# The packages of a lock for a Python, in its environment or another folder: $(call INSTALL,LOCK,PYTHON,--target FOLDER).
# uv takes a tenth of pip's time; the constraints of this project's settings have no hashes, so it is not to read them.
# Where uv fails, as with an index that only pip knows, pip installs.
INSTALL = $(BIN)/uv --project / pip install --quiet --require-hashes --no-deps --python $(2) $(3) -r $(1) || \
	$(PIP) --python $(2) install --no-compile --require-hashes --no-deps $(3) -r $(1)
# pip compiles on one core, tests of the packages, too. A file that does not compile is not meant for this Python.
# Of some large packages few modules or none are ever imported: these are compiled when they are.
RARE := tests?|plotly|mlflow|databricks|altair|fontTools|mypy|mypyc|sphinx|docutils|snowballstemmer|babel|pyasn1_modules
COMPILE_MODULES = $(PY) -m compileall -qq -j 0 -x '/($(RARE))/|/pygments/lexers/' $(VENV)/lib || true
USER_STAMP := $(VENV)/.requirements.stamp
DEV_STAMP := $(VENV)/.requirements-dev.stamp
CLIENTS_STAMP := $(CLIENTS)/.requirements.stamp
NVFOREST_STAMP := $(NVFOREST)/.requirements.stamp
RAY_STAMP := $(RAY)/.requirements.stamp
SPARK_STAMP := $(SPARK)/.requirements.stamp
DEPLOY_STAMP := $(DEPLOY)/.requirements.stamp
KAFKA_STAMP := $(KAFKA)/.requirements.stamp
REGISTRY_STAMP := $(REGISTRY)/.requirements.stamp
KUBERNETES_STAMP := $(KUBERNETES)/.requirements.stamp
GPU_STAMP := $(GPU)/.gpu.stamp
# The tests of one engine, whose packages are in a folder of their own.
ENGINE_TESTS = PYTHONPATH=$(abspath $(VENV)-$(1)):$(CURDIR) PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --timeout 600 plugins/$(1)
# skewless and its plug-ins, as checked out.
PLUGINS := $(sort $(wildcard plugins/*/pyproject.toml examples/*/pyproject.toml))
INSTALL_OURS = $(PIP) install --no-deps --no-build-isolation -e . $(PLUGINS:%/pyproject.toml=-e %)
# Requirements of other clients that are never imported here.
UNUSED := aiohappyeyeballs aiohttp aiohttp-retry aiosignal frozenlist httptools multidict \
	pillow propcache pyasn1 pyjwt python-dotenv uvloop websockets yarl

# Requirements of packages of a server that it never imports: it uses LightGBM and XGBoost by their C API.
UNUSED_BY_SERVER := narwhals nvidia-nccl-cu12 scipy valkey
CONNECTORS := --extra cpu --extra postgres --extra cloud --extra kafka --extra grpc --extra oidc --extra otel

# Copies a server into a folder: $(call COPY_WITH_MAVEN,NAME,TARGET,FOLDER,FOLDER OF ITS POM,SIZE,THEN). Without Java,
# Maven or a network the tests of it are skipped; a file that differs from SHA256SUMS is an error.
define COPY_WITH_MAVEN
@rm -rf $(3)
@if ! { command -v java && command -v mvn; } >/dev/null; then \
	echo "no Java or no Maven: the tests of $(1) are skipped. Fix: apt-get install openjdk-17-jre-headless maven" >&2; \
elif echo "installing $(1) for the tests into $(3) (half a minute, $(5))" && \
	! mvn -q -B -f $(4)/pom.xml dependency:copy-dependencies -DoutputDirectory=$(abspath $(3)); then \
	echo "Maven has no $(1): its tests are skipped. Fix: connect Maven to a repository; make $(2)" >&2; \
	rm -rf $(3); \
elif ! (cd $(3) && LC_ALL=C sha256sum *) | diff $(4)/SHA256SUMS -; then \
	echo "files of $(1) differ from $(4)/SHA256SUMS. Fix: compare them, then make $(2)" >&2; \
	rm -rf $(3); exit 1; \
elif $(6); then touch $@; else exit 1; fi
endef

# Rejects a Python of the wrong version, or another Python than that of the existing environment.
define CHECK
import os, subprocess, sys
have, name, place = sys.version_info[:2], sys.argv[1], sys.argv[2]
text = "%d.%d" % have
if not (3, 11) <= have < (3, 14):
    sys.exit("%s is Python %s; skewless needs 3.11, 3.12 or 3.13. Fix: make %s PYTHON=python3.12" % (name, text, sys.argv[3]))
try:
    import ensurepip, venv
except ImportError:
    sys.exit("%s has no venv module. Fix: install the package python%s-venv, or name another PYTHON=" % (name, text))
inside = os.path.join(place, "bin", "python")
if os.path.exists(inside):
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    made = subprocess.run([inside, "-c", code], stdout=subprocess.PIPE, check=True).stdout.decode().strip()
    if made != text:
        sys.exit("%s holds Python %s, %s is %s. Fix: make %s PYTHON=%s VENV=.venv%d%d" % ((place, made, name, text, sys.argv[3], name) + have))
endef
export CHECK

.PHONY: help demo demo-shared quick test lint rules words types layers tests plugins engines coverage soak bench docs dist picture room-pictures lock audit format clean setup setup-dev setup-clients setup-nvforest setup-ray setup-spark setup-deploy setup-kafka setup-registry setup-kubernetes setup-gpu gpu python

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: setup  ## the complete system on real flights, from files to a retrained model
	@$(PY) -m skewless_demo.flights --repo feature_repo
	@PYTHONDONTWRITEBYTECODE= $(BIN)/skewless demo --repo feature_repo

# An empty PostgreSQL, Redis and S3 for this run; moto, the S3, is in the environment of the clients.
demo-shared: setup-dev setup-clients  ## the demo with its state in PostgreSQL and S3, as several machines share it
	@$(PY) -m skewless_demo.flights --repo feature_repo
	@$(PY) -m tools.shared_services $(BIN)/skewless demo --repo feature_repo

# Types are checked while the tests run. Without bytecode, each worker would rewrite the asserts of 300 modules.
quick: setup-dev  ## under a minute: lint, types of what changed, unit tests, a few examples of each property
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy & PYTHONDONTWRITEBYTECODE= HYPOTHESIS_PROFILE=quick $(BIN)/pytest -q -n $(WORKERS) --dist worksteal \
		-m "not (long or soak or bench or gpu)" tests/unit tests/architecture tests/property $(ARGS); \
		tests=$$?; wait $$! && exit $$tests

# The environments are independent, and so are the checks. Types are checked while the first tests wait.
test: python  ## linters, types, layers and the daily tests
	+@$(MAKE) --no-print-directory -j5 setup-dev setup-clients setup-nvforest setup-kafka setup-registry
	+@$(MAKE) --no-print-directory -j2 lint layers
	+@$(MAKE) --no-print-directory -j2 types tests
	+@$(MAKE) --no-print-directory plugins

lint: rules words  ## ruff: rules and format; spelling, prose and words of the texts

rules: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/proselint check --config tools/proselint.json README.md CONTRIBUTING.md docs/*.md docs/api/*.md

words: setup-dev
	$(PY) -m tools.words

# One cache: what a project imports has been read by then.
types: setup-dev  ## mypy --strict on everything, tests too
	$(BIN)/mypy -n auto
	@for project in skewless/template/* tests/worlds/payments; do \
		echo "mypy $$project"; \
		MYPYPATH=$$project $(BIN)/mypy $$project/*.py || exit 1; \
	done

layers: setup-dev  ## imports point down
	$(BIN)/lint-imports --no-logo

# With bytecode, neither the workers nor the commands that tests run compile the modules again.
tests: setup-dev setup-clients setup-kafka  ## pytest alone; ARGS="-k rows" narrows it
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# `make test` runs one check of each plug-in, and all tests of those that have changed; `make soak` runs all.
plugins: setup-dev setup-clients setup-nvforest setup-registry  ## the tests of the plug-ins that have changed; ALL=1 of all
	@changed=$$($(PY) -m tools.changed_plugins $(if $(ALL),--all)) || exit 1; \
	if [ -n "$$changed" ]; then $(BIN)/pytest -n $(WORKERS) --dist loadfile $$changed $(ARGS); fi
	@for engine in ray spark; do \
		if [ -e $(VENV)-$$engine/.requirements.stamp ]; then $(call ENGINE_TESTS,$$engine) || exit 1; \
		else echo "plugins/$$engine is skipped. Fix: make setup-$$engine"; fi; \
	done

engines: setup-ray setup-spark  ## the tests of the engines Ray and Spark, also the long ones
	$(call ENGINE_TESTS,ray) tests/nightly/flights/test_windows.py -k "ray" -m "soak or not soak" $(ARGS)
	$(call ENGINE_TESTS,spark) tests/nightly/flights/test_windows.py -k "spark" -m "soak or not soak" $(ARGS)

# Not in `make test`: counting branches, also in child processes, takes a third more time.
coverage: setup-dev setup-clients setup-kafka  ## the same tests, with the lines and branches that they miss
	@rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)
	@$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# Tests marked `soak` run one after another, and all others of tests/nightly and of the plug-ins beside each other.
soak: setup-dev setup-clients setup-nvforest setup-deploy setup-kafka setup-registry setup-kubernetes  ## the nightly tests, and all those marked soak; ONLY=folder runs its tests
	HYPOTHESIS_PROFILE=soak $(BIN)/pytest -m soak -o 'norecursedirs=.* build dist' --timeout 1800 $(or $(ONLY),tests plugins examples) $(ARGS)
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(or $(ONLY),tests/nightly plugins examples) $(ARGS)
	$(if $(ONLY),,HYPOTHESIS_PROFILE=soak $(BIN)/pytest tests/property --timeout 3600 $(ARGS))

gpu: $(GPU_STAMP)  ## tests that need a GPU, in an environment with the extra `gpu` (4.5 GB)
	$(GPU)/bin/pytest plugins/gpu -m gpu --timeout 600 $(ARGS)

bench: setup-dev setup-kafka  ## comparisons; ONLY=name runs one
	$(PY) -m benchmarks $(ONLY)

docs: setup-dev  ## the documentation as a site with a search, in build/docs
	$(BIN)/sphinx-build -W --keep-going -q -c docs -b html . build/docs
	@echo "open build/docs/index.html"

dist: setup-dev  ## wheels and sdists of skewless and of all plug-ins, in dist
	$(PY) -m tools.dist dist

picture: setup  ## run the demo and draw docs/demo.svg from its output
	@$(PY) -m skewless_demo.flights --repo feature_repo
	@$(PY) -m tools.picture --repo feature_repo docs/demo.svg

room-pictures: setup-dev  ## draw the pictures of the control room, with Chromium
	@$(PY) -m tools.room_pictures docs

format: setup-dev  ## let ruff fix and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(BIN)/uv  ## pin all requirements again
	$(COMPILE) pyproject.toml --extra project --extra cpu --extra demo --extra control-room --extra build -o requirements.txt
	$(COMPILE) pyproject.toml --extra project --extra cpu --extra demo --extra control-room --extra build --extra dev -c requirements.txt -o requirements-dev.txt
	$(COMPILE) pyproject.toml --extra serve $(CONNECTORS) -c requirements-dev.txt $(UNUSED_BY_SERVER:%=--no-emit-package %) -o $(IMAGE)/server.txt
	$(COMPILE) pyproject.toml --extra project $(CONNECTORS) --extra avro --extra protobuf --extra json-schema -c requirements-dev.txt -o $(IMAGE)/jobs.txt
	$(COMPILE) $(IMAGE)/build.in -c requirements.txt -o $(IMAGE)/build.txt
	$(COMPILE) tools/uv.in -o tools/uv.txt
	$(COMPILE) tests/nightly/clients/requirements.in $(UNUSED:%=--no-emit-package %) -o tests/nightly/clients/requirements.txt
	$(COMPILE) tests/nightly/deploy/requirements.in -o tests/nightly/deploy/requirements.txt
	for folder in plugins/gpu/tests plugins/ray/tests plugins/spark/tests; do \
		$(COMPILE) --no-deps $$folder/requirements.in -o $$folder/requirements.txt || exit 1; \
	done
	$(PY) -m tools.sbom requirements.txt sbom.json

audit: python  ## look the locked requirements up in an index of advisories (needs pip-audit and that index)
	$(PYTHON) -m tools.audit requirements.txt

clean:  ## remove environment, caches and demo data
	rm -rf $(VENV) $(CLIENTS) $(NVFOREST) $(RAY) $(SPARK) $(DEPLOY) $(KAFKA) $(REGISTRY) $(KUBERNETES) $(GPU) build dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf .skewless feature_repo/.skewless feature_repo/data
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

setup: python $(USER_STAMP)
setup-dev: python $(DEV_STAMP)
setup-clients: python $(CLIENTS_STAMP)
setup-nvforest: python $(NVFOREST_STAMP)
setup-ray: setup-dev $(RAY_STAMP)
setup-spark: setup-dev $(SPARK_STAMP)
setup-deploy: python $(DEPLOY_STAMP)
setup-kafka: python $(KAFKA_STAMP)
setup-registry: python $(REGISTRY_STAMP)
setup-kubernetes: $(KUBERNETES_STAMP)
setup-gpu: $(GPU_STAMP)

python:
	@$(PYTHON) -c "$$CHECK" "$(PYTHON)" "$(VENV)" "$(firstword $(MAKECMDGOALS) help)"

# venv writes pip last, so its presence means that the environment is complete.
$(BIN)/pip: | python
	$(PYTHON) -m venv $(VENV)

$(BIN)/uv: tools/uv.txt | $(BIN)/pip
	@$(PIP) install --no-compile --require-hashes -r $< && touch $@ || echo "without uv, pip takes some minutes"

$(USER_STAMP): requirements.txt pyproject.toml $(PLUGINS) | $(BIN)/uv
	@echo "installing the locked requirements into $(VENV) (about a minute, 1 GB)"
	@$(call INSTALL,requirements.txt,$(PY))
	@$(COMPILE_MODULES)
	@$(INSTALL_OURS)
	@touch $@

# A superset of requirements.txt with the same pins, so `make demo` can use it too.
$(DEV_STAMP): requirements-dev.txt requirements.txt pyproject.toml $(PLUGINS) | $(BIN)/uv
	@echo "installing the locked requirements into $(VENV) (about a minute, 1 GB)"
	@$(call INSTALL,requirements-dev.txt,$(PY))
	@$(COMPILE_MODULES)
	@$(INSTALL_OURS)
	@touch $(USER_STAMP) $@

# Other clients, which the tests run against the server.
$(CLIENTS_STAMP): tests/nightly/clients/requirements.txt | $(BIN)/uv
	@echo "installing the clients that the tests use into $(CLIENTS) (about a minute, 0.5 GB)"
	@$(PYTHON) -m venv --without-pip $(CLIENTS)
	@$(call INSTALL,$<,$(CLIENTS)/bin/python)
	@touch $@

# A gateway, a chart's renderer and checkers of manifests, which only the tests of deployment run.
$(DEPLOY_STAMP): tests/nightly/deploy/requirements.txt | $(BIN)/uv
	@echo "installing the tools of deployment that the tests use into $(DEPLOY) (half a minute, 0.5 GB)"
	@$(PYTHON) -m venv --without-pip $(DEPLOY)
	@$(call INSTALL,$<,$(DEPLOY)/bin/python)
	@touch $@

# A second runtime for the tests, in a folder that only the processes with this runtime read.
$(NVFOREST_STAMP): plugins/gpu/tests/requirements.txt | $(BIN)/uv
	@echo "installing nvForest for the tests into $(NVFOREST) (half a minute, 0.4 GB)"
	@rm -rf $(NVFOREST)
	@$(call INSTALL,$<,$(PY),--target $(NVFOREST))
	@touch $@

# Engines for the tests, as nvForest: PYTHONPATH=$(RAY) makes the environment that of a worker. Spark needs Java, too.
$(RAY_STAMP): plugins/ray/tests/requirements.txt
	@echo "installing Ray for the tests into $(RAY) (half a minute, 0.3 GB)"
	@rm -rf $(RAY)
	@$(call INSTALL,$<,$(PY),--target $(RAY))
	@touch $@

$(SPARK_STAMP): plugins/spark/tests/requirements.txt
	@command -v java >/dev/null || { echo "Spark needs Java. Fix: apt-get install openjdk-17-jre-headless" >&2; exit 1; }
	@echo "installing Spark for the tests into $(SPARK) (a minute, 0.5 GB)"
	@rm -rf $(SPARK)
	@$(call INSTALL,$<,$(PY),--target $(SPARK))
	@touch $@

# Servers of the tests.
$(KAFKA_STAMP): tests/servers/kafka_jars/pom.xml tests/servers/kafka_jars/SHA256SUMS
	$(call COPY_WITH_MAVEN,Apache Kafka,setup-kafka,$(KAFKA),$(<D),43 MB,true)

$(REGISTRY_STAMP): tests/servers/registry_app/pom.xml tests/servers/registry_app/SHA256SUMS
	$(call COPY_WITH_MAVEN,Apicurio Registry,setup-registry,$(REGISTRY),$(<D),146 MB,(cd $(REGISTRY) && tar xzf *.tar.gz && rm *.tar.gz))

# Without Go or a network the tests of it are skipped; a file that differs from its checksum is an error.
$(KUBERNETES_STAMP): $(wildcard tests/servers/kubernetes/*)
	@rm -rf $(KUBERNETES)
	@if ! command -v go >/dev/null; then \
		echo "no Go: the tests of Kubernetes are skipped. Fix: apt-get install golang (1.26 or later)" >&2; \
	elif echo "building a control plane of Kubernetes for the tests into $(KUBERNETES) (5 minutes, 176 MB)" && \
		! (cd $(<D) && go mod download); then \
		echo "Go cannot load Kubernetes: its tests are skipped. Fix: see above; make setup-kubernetes" >&2; \
	else sh tests/servers/kubernetes/build.sh $(KUBERNETES) && touch $@; fi

# A separate environment, because `xgboost` and `xgboost-cpu` write the same files.
$(GPU_STAMP): pyproject.toml requirements-dev.txt
	@$(MAKE) --no-print-directory setup-dev VENV=$(GPU)
	@echo "installing the extra gpu into $(GPU) (some minutes, 3.4 GB)"
	@$(GPU)/bin/python -m pip --disable-pip-version-check --quiet uninstall --yes xgboost-cpu
	@$(GPU)/bin/python -m pip --disable-pip-version-check --quiet install --force-reinstall --no-deps 'xgboost>=3.2,<4'
	@$(GPU)/bin/python -m pip --disable-pip-version-check --quiet install --no-build-isolation -e plugins/gpu
	@touch $@
