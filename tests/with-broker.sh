#!/usr/bin/env bash
# Runs a command on a private broker of its own, beside whatever else runs here, and stops that broker.
# With STORE=postgres also on a private PostgreSQL.
# usage: tests/with-broker.sh COMMAND...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source-path=SCRIPTDIR source=private.sh
. tests/private.sh
export RABBITRY_TEST_STORE=${STORE:-sqlite}
trap leave EXIT

rabbitmq/broker.sh up
[[ $RABBITRY_TEST_STORE != postgres ]] || bin/postgres.sh up
"$@"
