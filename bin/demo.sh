#!/usr/bin/env bash
# The tour: every command with its reply, then a worker killed under load. `make demo` has brought the broker and the store up.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export RABBITRY_HOME=${RABBITRY_HOME:-$root/.rabbitry}
PATH=${RELEASE:-$root/target/release}:$PATH
run=$(date +%s)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

say() {
    if [[ -t 1 ]]; then printf '\n\033[1m# %s\033[0m\n' "$*"; else printf '\n# %s\n' "$*"; fi
}

# Shows a command line and runs it; the exit code must be the expected one.
show() {
    local expected=$1 code=0
    shift
    echo "\$ $*"
    "$@" || code=$?
    if ((code != expected)); then
        echo "demo: exit code $code, expected $expected" >&2
        exit 1
    fi
}

ensure_workers() {
    local missing=$((2 - $("$root/bin/workers.sh" pids | wc -l)))
    if ((missing > 0)); then "$root/bin/workers.sh" start "$missing"; fi
}

tour() {
    say "A user is created, fetched, promoted and awarded"
    # The demo is repeatable, so a second run finds the users of the first.
    local john=johndoe
    if rabbitry users get "$john" >/dev/null 2>&1; then john=johndoe-$run; fi
    show 0 rabbitry users create "$john" --email john@example.com --points 120
    show 0 rabbitry users get "$john"
    show 0 rabbitry users promote "$john"
    show 0 rabbitry users award "$john" 25
    say "Refusals are replies, with exit code 1"
    show 1 rabbitry users create "$john" --email john@example.com
    show 1 rabbitry users get nobody-by-this-name
    say "The same message id is executed once, and gets the same reply again"
    show 0 rabbitry users award "$john" 1 --message-id "demo-$run" --verbose
    show 0 rabbitry users award "$john" 1 --message-id "demo-$run" --verbose
}

# What a job that failed would have brought about is not waited for: its exit code is the demo's.
or_fail_with() { # pid
    kill -0 "$1" 2>/dev/null || wait "$1" || exit
}

kill_under_load() {
    local count=2000 victim users
    say "kill -9 of a worker while $count commands are in flight"
    seq -f "{\"username\":\"load-$run-%05.0f\",\"email\":\"load@example.com\"}" "$count" >"$scratch/commands"
    rabbitry send users.create - --in-flight "$count" --timeout 60 <"$scratch/commands" >"$scratch/replies" &
    local producer=$!
    read -r victim < <("$root/bin/workers.sh" pids)
    # As soon as the first replies are there, the rest is in flight.
    until [[ -s $scratch/replies ]]; do
        or_fail_with "$producer"
        sleep 0.01
    done
    kill -9 "$victim"
    echo "worker $victim killed after $(wc -l <"$scratch/replies") of $count replies"
    "$root/bin/workers.sh" start 1
    wait "$producer"
    users=$(count_users "load-$run-")
    echo "$(grep -c '"status":"Bronze"' "$scratch/replies") commands were answered with the new user"
    echo "$users users are there, each once"
    ((users == count))
}

import_under_kill() {
    local rows=10000 victim importer users
    say "An import of $rows rows, and kill -9 of a worker in the middle of it"
    awk -v run="$run" -v rows="$rows" 'BEGIN {
        print "username,email,points"
        for (i = 1; i <= rows; i++) printf "import-%s-%05d,user%d@example.com,%d\n", run, i, i, i % 150
    }' >"$scratch/users.csv"
    echo "\$ rabbitry import users.create users.csv --then users.promote"
    # One message at a time, so that there is a middle.
    rabbitry import users.create "$scratch/users.csv" --then users.promote --in-flight 1 &
    importer=$!
    read -r victim < <("$root/bin/workers.sh" pids)
    until rabbitry users get "import-$run-00001" >/dev/null 2>&1; do
        or_fail_with "$importer"
        sleep 0.01
    done
    kill -9 "$victim"
    echo "worker $victim killed, the import goes on"
    "$root/bin/workers.sh" start 1
    wait "$importer"
    users=$(count_users "import-$run-")
    echo "$users users are there, each once"
    ((users == rows))
}

# Counts the users with a prefix, page by page.
count_users() {
    local after=$1 page total=0
    while true; do
        page=$(rabbitry users list --after "$after" --limit 1000 --json)
        total=$((total + $(grep -o "\"username\":\"$1[0-9]*\"" <<<"$page" | sort -u | wc -l)))
        after=$(sed -nE 's/.*"next":"([^"]*)".*/\1/p' <<<"$page")
        [[ $after == "$1"* ]] || break
    done
    echo "$total"
}

ensure_workers
tour
kill_under_load
import_under_kill
say "The system is running"
"$root/rabbitmq/broker.sh" status
[[ ! -e $RABBITRY_HOME/store.env ]] || "$root/bin/postgres.sh" status
cat <<END
Add a worker:      make workers N=1     (or make worker, in the foreground)
Watch:             make status, or the management UI above
Try:               ${RELEASE:-target/release}/rabbitry users create ann --email ann@example.com
Stop everything:   make down
END
