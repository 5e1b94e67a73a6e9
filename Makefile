# Everything that is done to this repository by a command. `make help` lists the targets.
# A fresh machine needs Python 3.11 or newer and make; the rest lands in .venv and .cache, and nowhere else.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory
.NOTPARALLEL:

PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' && echo $$p && break; done 2>/dev/null)
PORT ?= 8080
WORKERS ?= auto
FUZZ_SECONDS ?= 600
CALLS ?= 1000000
SEED ?= 1
JOBS ?= 4

BIN := .venv/bin
DEMO := .cache/demo-servers
GO := .cache/go
say = @printf '==> %s\n'
install = $(BIN)/uv pip install --quiet --require-hashes --python

# ---- for users ------------------------------------------------------------------------------------------------------

.PHONY: run
run: .venv/.core $(DEMO)/.installed compile ## Start the gateway in front of three real MCP servers; PORT=8080 by default
	@exec $(BIN)/python tools/demo.py --port $(PORT)

.PHONY: test
test: lint types compile docs fuzz-ci pytest pytest-compiled ## Check everything: linters, types, documentation, a short fuzz run, all tests

# ---- the parts of `make test` ---------------------------------------------------------------------------------------

.PHONY: lint
lint: .venv/.dev ## ruff: rules and format
	$(say) "lint"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "run: make format"; exit 1; }

.PHONY: format
format: .venv/.dev ## Let ruff format and mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: types
types: .venv/.dev ## mypy --strict
	$(say) "types"
	@$(BIN)/mypy
	@$(BIN)/python tools/compile.py --check

.PHONY: docs
docs: .venv/.dev ## Is what is generated fresh, and does the documentation build?
	$(say) "documentation"
	@$(BIN)/python tools/changelog.py --check
	@$(BIN)/python -m narthex.config.render --check
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir .cache/site

.PHONY: fuzz-ci
fuzz-ci: .venv/.dev ## A short run of every fuzz target over the corpus
	$(say) "fuzz, short"
	@NARTHEX_COMPILE=0 $(BIN)/python fuzz/run.py --seconds 5

.PHONY: pytest
pytest: .venv/.dev $(DEMO)/.installed counterparts ## All tests; WORKERS=0 runs them in one process
	$(say) "tests"
	@NARTHEX_COMPILE=0 $(BIN)/python tests/run.py -q -n $(WORKERS) --maxprocesses 4 --dist loadfile

COMPILED = tests/test_compiled.py tests/flow/test_walk.py tests/flow/test_whole.py tests/flow/test_outbox.py \
	tests/flow/accept tests/flow/codec tests/flow/identity tests/flow/limit tests/flow/notify tests/flow/policy tests/flow/route \
	tests/flow/upstream tests/store/shared tests/telemetry

.PHONY: pytest-compiled
pytest-compiled: .venv/.dev compile ## The tests of what is compiled, in that form, where there is a C compiler
	$(say) "tests of the compiled form"
	@if $(BIN)/narthex --version | grep -q '(compiled)'; then \
	NARTHEX_COMPILE=1 $(BIN)/python tests/run.py -q -n $(WORKERS) --maxprocesses 4 --dist loadfile $(COMPILED); \
	else test "$$CI" != true; fi

.PHONY: counterparts
counterparts: .venv/.core
	@if command -v npm >/dev/null || [ "$$CI" = true ]; then $(BIN)/python tests/counterparts/install; else \
	echo "npm is not here: tests against Node servers and clients are skipped (Debian: apt-get install nodejs npm)"; fi
	@$(BIN)/python tests/counterparts/go/build; case $$? in 0) ;; \
	3) if [ "$$CI" = true ]; then $(MAKE) go; else echo "no new Go is here: tests with the Go SDK and with Open Policy Agent are skipped (make go)"; fi;; \
	*) exit 1;; esac
	@if command -v mvn >/dev/null || [ "$$CI" = true ]; then $(BIN)/python -m tests.counterparts.keycloak.install; else \
	echo "Maven is not here: tests against Keycloak are skipped (Debian: apt-get install default-jdk-headless maven)"; fi

.PHONY: conformance
conformance: .venv/.dev counterparts ## The official conformance suite; UPSTREAM=URL: in front of that server
	@UPSTREAM=$(UPSTREAM) $(BIN)/python -m tests.conformance.run

# ---- for those who work on it ---------------------------------------------------------------------------------------

.PHONY: bench
bench: .venv/.dev compile ## The gateway against nginx and FastMCP's proxy; needs nginx and wrk; writes bench/results
	@$(BIN)/python bench/run.py
	@$(BIN)/python bench/run.py --only governed --out bench/results/governed.json
	@$(BIN)/python bench/governing.py
	@NARTHEX_COMPILE=0 $(BIN)/python bench/steps.py
	@NARTHEX_COMPILE=0 $(BIN)/python bench/bridges.py
	@$(BIN)/python bench/memory.py
	@$(BIN)/python bench/startup.py
	@$(BIN)/python bench/replay.py
	@NARTHEX_COMPILE=0 $(BIN)/python bench/rego.py
	@$(BIN)/python bench/hidden.py
	@$(BIN)/python bench/journal.py
	@$(BIN)/python bench/durable.py
	@$(BIN)/python bench/shared.py
	@$(BIN)/python bench/cache.py
	@$(BIN)/python bench/report.py

.PHONY: soak
soak: .venv/.dev compile ## A million calls by clients that never say goodbye: does memory stay flat? CALLS=1000000
	@$(BIN)/python bench/soak.py --calls $(CALLS)

.PHONY: profile
profile: .venv/.dev compile ## Where the CPU of a gateway under load goes
	@$(BIN)/python bench/hotpath.py

.PHONY: bench-hidden
bench-hidden: .venv/.dev compile ## Can a hidden tool be told from a missing one by a clock? And by anything else?
	@$(BIN)/python bench/hidden.py

.PHONY: bench-steps
bench-steps: .venv/.dev compile ## Where the microseconds of one call go, by room and by eras
	@NARTHEX_COMPILE=0 $(BIN)/python bench/steps.py
	@NARTHEX_COMPILE=0 $(BIN)/python bench/bridges.py

.PHONY: go
go: $(GO)/.installed ## What the tests with the Go SDK and OPA need, where the machine has no new Go
	@$(BIN)/python tests/counterparts/go/build

SOCKETS = $(wildcard tests/admin tests/authority tests/conformance tests/counterparts tests/engines tests/identity tests/security \
	tests/store tests/telemetry tests/flow/accept tests/flow/notify tests/flow/policy tests/flow/upstream tests/e2e tests/cli \
	tests/test_demo.py)

.PHONY: flaky
flaky: .venv/.dev $(DEMO)/.installed counterparts ## The tests with sockets and processes, ten times in a row
	@for i in 1 2 3 4 5 6 7 8 9 10; do echo "round $$i"; \
	$(BIN)/pytest -q -n $(WORKERS) --maxprocesses 4 --dist loadfile $(SOCKETS) || exit 1; done

.PHONY: slow
slow: .venv/.dev $(DEMO)/.installed counterparts ## The same once, while every thread, timer and process stalls: hours; FILES=tests/e2e SEED=1 JOBS=4
	@$(BIN)/python tests/slow/run.py $(SEED) $(JOBS) $(or $(FILES),$(SOCKETS))

.PHONY: fuzz
fuzz: .venv/.dev ## A long fuzz run: FUZZ_SECONDS=600 for each target
	@NARTHEX_COMPILE=0 $(BIN)/python fuzz/run.py --seconds $(FUZZ_SECONDS)

.PHONY: forgeries
forgeries: .venv/.dev ## 10,000 records: every bit flipped, every line in every other place, every cut. Is each of them seen?
	@NARTHEX_TEST_EVERY_BIT=1 NARTHEX_COMPILE=0 $(BIN)/pytest -q -s tests/telemetry/audit/test_forgeries.py

.PHONY: kills
kills: .venv/.dev ## A gateway killed under load, 500 times, and whatever works on the journal at every step: is it whole?
	@NARTHEX_TEST_KILLS=500 NARTHEX_COMPILE=0 $(BIN)/pytest -q tests/e2e/test_durable.py tests/cli/test_audit_killed.py \
		tests/telemetry/audit/test_turn_killed.py

.PHONY: ledger
ledger: .venv/.dev ## A process that spends, killed and started again: is the sum over the ledger what its limits count? CALLS=1000000
	@NARTHEX_TEST_LEDGER=$(CALLS) NARTHEX_COMPILE=0 $(BIN)/pytest -q -s tests/store/test_spending.py

.PHONY: reference
reference: .venv/.dev ## Write docs/reference anew from the schema and the commands
	@$(BIN)/python -m narthex.config.render --write

.PHONY: changelog
changelog: .venv/.dev ## Write CHANGELOG.md anew from changes/
	@$(BIN)/python tools/changelog.py

resolve = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'

.PHONY: lock
lock: .venv/.bootstrap ## Resolve all dependencies again and write the hashed files in requirements/
	$(resolve) pyproject.toml --group test --group lint --group docs -o requirements/dev.txt
	$(resolve) pyproject.toml -c requirements/dev.txt -o requirements/core.txt
	$(resolve) --group compile -c requirements/dev.txt -o requirements/compile.txt
	$(resolve) --group bootstrap -o requirements/bootstrap.txt
	$(resolve) --group demo -o requirements/demo.txt
	$(resolve) --group go -o requirements/go.txt

.PHONY: clean
clean: ## Remove environments, caches and the demo's state
	rm -rf .venv .cache src/narthex/_compiled .hypothesis .mypy_cache .pytest_cache .ruff_cache dist site
	rm -rf tests/counterparts/node_modules tests/counterparts/go/bin tests/counterparts/go/opa/bin
	find src tests tools bench fuzz -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

# ---- machine code of what a call passes: of the same sources, refused when they change --------------------------------

.PHONY: compile
compile: .venv/.core requirements/compile.txt ## Machine code of what a call passes, where there is a C compiler; NARTHEX_COMPILE=0: none
	@$(BIN)/python tools/compile.py --wanted; case $$? in \
	0) printf '==> machine code of what a call passes: about a minute, once\n' && \
	$(install) $(BIN)/python -r requirements/compile.txt && $(BIN)/python tools/compile.py ;; \
	3) ;; *) exit 1 ;; esac

# ---- environments: a stamp file says that the lock file of the same name is installed --------------------------------

.venv/.bootstrap: requirements/bootstrap.txt
	@test -n "$(PYTHON)" || { echo "Narthex needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	$(say) "Python environment in .venv ($$($(PYTHON) --version))"
	@$(PYTHON) -m venv .venv || { echo "Python has no venv module here (Debian: apt-get install python3-venv)"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

.venv/.core: requirements/core.txt pyproject.toml .venv/.bootstrap
	$(say) "Narthex and what it needs"
	@$(install) $(BIN)/python -r $<
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-build-isolation --no-deps --editable .
	@touch $@

.venv/.dev: requirements/dev.txt .venv/.core
	$(say) "what the checks need"
	@$(install) $(BIN)/python -r $<
	@touch $@

$(DEMO)/.installed: requirements/demo.txt .venv/.bootstrap
	$(say) "three MCP servers, in an environment of their own ($(DEMO))"
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(DEMO)
	@$(install) $(DEMO)/bin/python -r $<
	@touch $@

$(GO)/.installed: requirements/go.txt .venv/.bootstrap
	$(say) "Go ($(GO))"
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(GO)
	@$(install) $(GO)/bin/python -r $<
	@touch $@
