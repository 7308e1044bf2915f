#!/usr/bin/env bash
# Runs a command on a private broker of its own, beside whatever else runs here, and stops that broker.
# With STORE=postgres also on a private PostgreSQL.
# usage: tests/with-broker.sh COMMAND...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

home=$(mktemp -d "${TMPDIR:-/tmp}/rabbitry-test.XXXXXX")
# What runs here never touches a broker or a store that the environment names.
unset AMQP_URL AMQP_URL_FILE AMQP_MANAGEMENT_URL DATABASE_URL DATABASE_URL_FILE AMQP_PORT MANAGEMENT_PORT POSTGRES_PORT
export RABBITRY_HOME=$home RABBITRY_TEST_STORE=${STORE:-sqlite}
finish() {
    rabbitmq/broker.sh down >/dev/null || true
    bin/postgres.sh down >/dev/null || true
    bin/postgres.sh delete || true
    rm -rf "$home"
}
trap finish EXIT

rabbitmq/broker.sh up
[[ $RABBITRY_TEST_STORE != postgres ]] || bin/postgres.sh up
"$@"
