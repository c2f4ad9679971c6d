# `make` alone lists the targets.

PORT ?= 9000
UPSTREAM_URL ?= http://localhost:$(PORT)/time
ARCHITECTURE ?= x86_64

# cargo-lambda cross-links with zig. Where the machine lacks either, both come from PyPI, into this folder.
ifeq ($(and $(shell command -v cargo-lambda),$(shell command -v zig)),)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
CARGO_LAMBDA := .venv/cargo-lambda
endif

.PHONY: help run test build clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

run: tools ## serve hello, time and fetch on localhost, rebuilt when their code changes
	@python3 -c 'import socket; socket.create_server(("127.0.0.1", $(PORT)))' 2>/dev/null || \
		{ echo 'Port $(PORT) is in use: stop what listens there, or choose another one, as in `make run PORT=9001`.'; exit 1; }
	@cargo build
	@(for path in / /time /fetch; do \
		until python3 -c 'import urllib.request as u; u.urlopen("http://localhost:$(PORT)'$$path'")' 2>/dev/null; \
		do kill -0 $$$$ 2>/dev/null || exit; sleep 0.2; done; done; \
		printf '\nready: http://localhost:$(PORT)/  /hello  /time  /fetch\n\n'; \
		printf '  curl %s\n' "'http://localhost:$(PORT)/hello?name=Ada'" \
			"'http://localhost:$(PORT)/time?tz=Europe/Paris'" 'http://localhost:$(PORT)/fetch'; echo) & \
	UPSTREAM_URL='$(UPSTREAM_URL)' exec cargo lambda watch --invoke-address 127.0.0.1 --invoke-port $(PORT) --disable-cors

test: build ## prove that everything works
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items
	cargo test --workspace

build: tools ## make the three zips that Lambda takes (ARCHITECTURE=arm64 for Graviton)
	cargo lambda build --release --output-format zip --$(subst _,-,$(ARCHITECTURE))
	@cd target/lambda && wc -c */bootstrap.zip

clean: ## remove all that the other targets made
	rm -rf target .venv

.PHONY: tools
tools: $(CARGO_LAMBDA)
	@command -v cargo >/dev/null || { echo 'Rust is missing: install it as https://rustup.rs says.'; exit 1; }

.venv/cargo-lambda: testbed/requirements-run.txt
	@command -v python3 >/dev/null || { echo 'Python 3 is missing: install python3, with its venv module.'; exit 1; }
	python3 -m venv .venv
	.venv/bin/pip install --quiet --requirement $<
	@touch $@
