# One line per target; the work is done in scripts/, whose exit codes mean something (69: something is missing and
# cannot be installed here). make itself turns every failure into its own exit code 2: call the script where it matters.
.DEFAULT_GOAL := help
.PHONY: help up stack test test-stack lint bench bench-stack load cache fuzz fmt
# Arguments for the script behind a target, as in: make bench ARGS="--quick --only troupe-one"
ARGS ?=

help: ; @awk -F '; *@| *[#][#] *' '/^[a-gi-z][a-z-]*: *;/ { split($$1, name, ":"); printf "  make %-11s %s\n", name[1], $$3 }' $(MAKEFILE_LIST)
up: ; @scripts/up.sh $(ARGS) ## install what is missing, build, serve functions/ at http://127.0.0.1:8080
stack: ; @scripts/stack.sh up $(ARGS) ## build the images, serve functions/ from containers at http://127.0.0.1:8080
test: ; @scripts/test.sh $(ARGS) ## install what the tests need, then run every test, Rust's, PHP's and the harness's
test-stack: ; @scripts/test-stack.sh $(ARGS) ## break the stack in containers in every way that is foreseen, under load
lint: ; @scripts/lint.sh $(ARGS) ## formatting, clippy, docs, file sizes, dependencies; changes nothing
fmt: ; @cargo fmt --all $(ARGS) ## format the Rust code
bench: ; @scripts/bench.sh $(ARGS) ## Troupe beside its peers on this machine; stores a report in loadtests/reports/
bench-stack: ; @scripts/bench-stack.sh $(ARGS) ## the stack in containers beside its peers, and scaled; stores a report
load: ; @scripts/load.sh $(ARGS) ## load against the running stack, or HOST=http://...; one report (ARGS=stress: see --help)
cache: ; @scripts/cache.sh $(ARGS) ## what the cache promises: memory under 10 million URLs, bodies under fire, hit ratios
fuzz: ; @scripts/fuzz.sh $(ARGS) ## every fuzz target for 60 seconds
