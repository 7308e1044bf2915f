#!/usr/bin/env bash
# Runs the tests on a private broker of their own, beside whatever else runs here, and stops it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

home=$(mktemp -d "${TMPDIR:-/tmp}/rabbitry-test.XXXXXX")
# The tests never touch a broker or a store that the environment names.
unset AMQP_URL AMQP_URL_FILE AMQP_MANAGEMENT_URL DATABASE_URL DATABASE_URL_FILE AMQP_PORT MANAGEMENT_PORT
export RABBITRY_HOME=$home
finish() {
    rabbitmq/broker.sh down >/dev/null || true
    rm -rf "$home"
}
trap finish EXIT

python=$(realpath -m "${CARGO_TARGET_DIR:-target}/python")
tests/clients/prepare.sh "$python"
export RABBITRY_TEST_PYTHON=$python/bin/python
cargo test --locked --no-run
rabbitmq/broker.sh up
cargo test --locked "$@"
