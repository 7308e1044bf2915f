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
cargo test --locked --no-run
tests/with-broker.sh cargo test --locked "${arguments[@]}"
# No figures, only that the benchmark still runs.
[ $# -gt 0 ] || tests/with-broker.sh cargo test --locked --bench bench -- --smoke
