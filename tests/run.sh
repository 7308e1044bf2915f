#!/usr/bin/env bash
# Runs the tests on a private broker of their own, and on the store that STORE names: sqlite (default) or postgres.
# Arguments are those of `cargo test`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export STORE=${STORE:-sqlite}
arguments=("$@")
if [[ $STORE != postgres ]]; then
    echo "store: $STORE. The tests about PostgreSQL itself are not among them: make test STORE=postgres"
    [[ " $* " == *" -- "* ]] || arguments+=(--)
    arguments+=(--skip postgres_only::)
fi
python=$(realpath -m "${CARGO_TARGET_DIR:-target}/python")
tests/clients/prepare.sh "$python"
export RABBITRY_TEST_PYTHON=$python/bin/python
# One build for all of it: with failpoints, so that workers can be made to fail.
cargo test --locked --workspace --features failpoints --no-run
cargo build --locked --workspace --features failpoints --bins
tests/with-broker.sh cargo test --locked --workspace --features failpoints --lib --test it "${arguments[@]}"
[ $# -eq 0 ] || exit 0 # the programs below take other arguments
cargo test --locked --workspace --features failpoints --doc
# A few seconds of each family of faults; they break the broker too, so it is theirs alone.
tests/with-broker.sh cargo test --locked --features failpoints --test faults -- --quick
# No figures, only that the benchmark still runs.
tests/with-broker.sh cargo test --locked --features failpoints --bench bench -- --smoke
