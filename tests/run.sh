#!/usr/bin/env bash
# Runs the tests on a private broker of their own. Arguments are those of `cargo test`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=$(realpath -m "${CARGO_TARGET_DIR:-target}/python")
tests/clients/prepare.sh "$python"
export RABBITRY_TEST_PYTHON=$python/bin/python
cargo test --locked --no-run
tests/with-broker.sh cargo test --locked "$@"
# No figures, only that the benchmark still runs.
[ $# -gt 0 ] || tests/with-broker.sh cargo test --locked --bench bench -- --smoke
