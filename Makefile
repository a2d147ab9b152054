# Needs Python 3.11 or newer and make, nothing else; each target sets up what it lacks, and says so.
# Variables: PYTHON (which one), ARGS (for pytest or the benches), BROKERS, PORT and DATA (make kafka);
# BIND_ADDR, KAFKA_BROKERS and the other variables of conf/gateway.yaml work with make run.

PYTHON ?= python3
# Taken in place of a python3 that was built without optimisation and so needs a third more for everything; PYTHON=python3 takes that one.
QUICK_PYTHON = /usr/bin/python3
SHELL = /bin/sh
BIN = .venv/bin
# Finds packages with a third of the work of the one that comes with Python 3.11 (24 s and 10); that one would do.
PIP = pip==26.3
# The least branch coverage of core/, in percent.
CORE_BRANCHES = 98

# tests/conftest.py says how many, what stays together, and what begins first.
PARALLEL = -n auto --dist loadgroup --no-loadscope-reorder
# For who waits, every test with a fifth of its examples, orders and connections (tests/support/examples.py).
PART = --hypothesis-profile part

# The tests start hundreds of processes: each compiles all modules where it may not keep what was compiled.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run unit test check kafka bench docs fuzz autobahn mutants clean code lint tests ready jars site node

help:
	@echo "make run     the gateway with an embedded Kafka and a simulated exchange, for a first look"
	@echo "make unit    tests that need neither Kafka nor a browser nor another process: about a minute"
	@echo "make test    all tests: some minutes                        ARGS='-k name' for some"
	@echo "make check   format, lint, types, all tests with all their examples, the coverage of core/"
	@echo "make kafka   a real Apache Kafka on this machine            BROKERS=3 PORT=9092 DATA=folder"
	@echo "make bench   the gateway beside its peers, on a real Kafka  ARGS=--quick for a short one"
	@echo "make docs    this Markdown as a site, with search and the APIs  needs npm; in .docs/site"
	@echo "make fuzz    a million WebSocket frames, generated and mutated; minutes"
	@echo "make autobahn Autobahn's testsuite against the frames of /ws: needs Python 2.7; minutes"
	@echo "make mutants changes a few files in small ways, and tells which changes no test notices; minutes"
	@echo "make clean   removes what these made"

run: .venv/run.stamp
	@exec $(BIN)/python gateway.py --config conf/demo.yaml

unit: .venv/dev.stamp
	@$(BIN)/python -m pytest -n auto --dist worksteal -m 'not system' $(PART) $(ARGS)

test: ready
	@$(BIN)/python -m pytest $(PARALLEL) $(PART) $(ARGS)

# Kafka's jars are prepared while the tools are installed and look at the code; tests begin when that is in order.
# The site is made where there is npm, which CI sees to.
check: code
	@$(MAKE) --no-print-directory tests

code: .venv/run.stamp
	@$(MAKE) --no-print-directory -j2 lint jars $(if $(shell command -v npm),site)

lint: .venv/dev.stamp
	@echo "ruff: format"
	@$(BIN)/ruff format --check .
	@echo "ruff: lint"
	@$(BIN)/ruff check .
	@echo "mypy: strict"
	@$(BIN)/mypy

tests: ready
	@echo "pytest: all tests, warnings as errors"
	@$(BIN)/python -m slipcover -m pytest $(PARALLEL) --hypothesis-profile $(or $(PROFILE),all) $(ARGS)
	@$(BIN)/python -m slipcover --merge .coverage.core.json --out .coverage.core.json
	@$(BIN)/python -c 'import json, sys; \
	t = json.load(open(".coverage.core.json"))["summary"]; \
	p = 100 * t["covered_branches"] / max(1, t["covered_branches"] + t["missing_branches"]); \
	print(f"core/: {p:.1f} % of its branches are covered, $(CORE_BRANCHES) are wanted"); \
	sys.exit(p < $(CORE_BRANCHES))'

kafka: .venv/run.stamp
	@exec $(BIN)/python -m tools.kafka --brokers $(or $(BROKERS),1) --port $(or $(PORT),9092) \
		$(if $(DATA),--data '$(DATA)')

bench: .venv/run.stamp
	@exec $(BIN)/python -m bench $(ARGS)

docs: site
	@echo "the site: file://$(CURDIR)/.docs/site/index.html; or with all of its drawings:" \
		"python3 -m http.server --directory .docs/site"

# Whatever Sphinx warns of is an error: a link to a page, chapter or file that is not there is one. -E, because it warns of what it reads.
site: .docs/venv.stamp .docs/renderers.stamp
	@echo "sphinx: the site"
	@rm -rf .docs/site
	@.docs/venv/bin/python -m sphinx -E -W --keep-going -q -d .docs/doctrees -c docs . .docs/site

# FRAMES=100000 for fewer. Nothing ends it for lasting long, and what it counted is shown.
fuzz: .venv/dev.stamp
	@FUZZ_FRAMES=$(or $(FRAMES),1000000) $(BIN)/python -m pytest -n 2 -rP -o faulthandler_timeout=0 \
		tests/handlers/test_websocket_fuzz.py $(ARGS)

# ARGS='6.*' for some.
autobahn: .venv/run.stamp
	@$(BIN)/python -m tools.autobahn $(ARGS)

# With as many processes as there are cores, or ARGS='--max-children 1'.
mutants: .mutants/venv.stamp
	@.mutants/bin/python -m tools.mutants $(ARGS)

clean:
	@rm -rf clients/js/node_modules
	@rm -rf .venv .kafka .bench .client .docs .autobahn .mutants mutants build clients/python/build clients/python/*.egg-info htmlcov .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Both at once: Kafka's jars are prepared by a JVM, while packages are installed.
ready: .venv/run.stamp
	@$(MAKE) --no-print-directory -j2 .venv/dev.stamp jars node

# Tests on a real Kafka are skipped where it cannot be had, so a failure here is only told.
jars: .venv/run.stamp
	@$(BIN)/python -m tools.kafka --fetch || echo "tests on a real Kafka will be skipped"

# Nor what only the tests of the client for JavaScript need.
node:
	@command -v npm >/dev/null && $(MAKE) --no-print-directory clients/js/node_modules \
		|| echo "tests of the client for JavaScript will be skipped, all or some"

clients/js/node_modules: clients/js/package-lock.json
	@echo "installing $< into $@ ..."
	@npm ci --prefix clients/js --ignore-scripts --no-audit --no-fund --silent && touch $@

# Two stamps: running needs nothing that only tests need.
.venv/run.stamp: requirements.txt | $(BIN)/python
	@$(call install,requirements.txt,.venv)

.venv/dev.stamp: requirements-dev.txt .venv/run.stamp
	@$(call install,requirements-dev.txt,.venv,--no-compile)

# An environment of its own: what is needed to run and to test has no room for what this needs.
.mutants/venv.stamp: requirements-mutants.txt requirements-dev.txt requirements.txt | $(BIN)/python
	@$(BIN)/python -m venv .mutants
	@$(call install,requirements-mutants.txt,.mutants)

# As above.
.docs/venv.stamp: docs/requirements.txt | $(BIN)/python
	@mkdir -p .docs
	@$(BIN)/python -m venv .docs/venv
	@$(call install,docs/requirements.txt,.docs/venv,--no-compile)

.docs/renderers.stamp: docs/site/renderers.json docs/site/fetch.py | $(BIN)/python
	@echo "fetching what draws the REST APIs ..."
	@$(BIN)/python docs/site/fetch.py .docs/renderers && touch $@

# --no-compile: of what only tests need most is never imported; what is, Python compiles then, and keeps.
install = echo "installing $(1) into $(2) ..."; \
	$(2)/bin/python -m pip install --disable-pip-version-check --no-input --quiet --retries 2 $(3) -r $(1) \
		>$(2)/pip.log 2>&1 && touch $@ || { \
	if grep -qiE 'NewConnectionError|NameResolution|Temporary failure|timed out|unreachable|refused|ProxyError' $(2)/pip.log; \
	then echo "make: the package index cannot be reached: connect to the network and call make again" >&2; \
	else echo "make: $$(grep -m1 ERROR $(2)/pip.log || tail -n1 $(2)/pip.log) (more in $(2)/pip.log)" >&2; fi; exit 1; }

is_optimised = import sys, sysconfig; \
	sys.exit(sys.base_prefix != "/usr" and "--enable-optimizations" not in (sysconfig.get_config_var("CONFIG_ARGS") or ""))

# $(PYTHON) first; a name of its own version where that one is too old. ensurepip is what Debian leaves out of venv.
$(BIN)/python:
	@for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "make: Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo missing):" \
			"install one and call make PYTHON=/path/to/python3.11" >&2; exit 1; \
	fi; \
	if [ "$(origin PYTHON)" = file ] && ! "$$found" -c '$(is_optimised)' && \
		$(QUICK_PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "$(QUICK_PYTHON) is taken: $$found was built without optimisation (make PYTHON=$$found has it all the same)"; \
		found=$(QUICK_PYTHON); \
	fi; \
	if ! "$$found" -c 'import venv, ensurepip' 2>/dev/null; then \
		echo "make: $$found has no venv module: install it (Debian: apt-get install python3-venv)" >&2; exit 1; \
	fi; \
	echo "making .venv with $$("$$found" --version) ..."; rm -rf .venv; \
	"$$found" -m venv .venv || { rm -rf .venv; echo "make: $$found could not make .venv here" >&2; exit 1; }; \
	$(BIN)/python -m pip install --disable-pip-version-check --no-input --quiet --retries 0 $(PIP) >/dev/null 2>&1 || true
