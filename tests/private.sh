# shellcheck shell=bash
# Sourced by what runs beside everything else on this machine: a home of its own, and nothing that the environment names
# is touched. `trap leave EXIT` stops and deletes what was started.
unset AMQP_URL AMQP_URL_FILE AMQP_MANAGEMENT_URL DATABASE_URL DATABASE_URL_FILE
unset AMQP_PORT MANAGEMENT_PORT PROMETHEUS_PORT POSTGRES_PORT
RABBITRY_HOME=$(mktemp -d "${TMPDIR:-/tmp}/rabbitry-test.XXXXXX")
export RABBITRY_HOME

leave() {
    bin/workers.sh stop || true
    rabbitmq/broker.sh down || true
    rabbitmq/broker.sh delete || true
    bin/postgres.sh down || true
    bin/postgres.sh delete || true
    rm -rf "$RABBITRY_HOME"
} >/dev/null
