#!/usr/bin/env bash
# Workers in the background: start N | stop | list | pids. Their pids and logs stand in $RABBITRY_HOME/workers.
# WORKER names another program than the one that `make build` makes; its workers are seen while it does.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
home=${RABBITRY_HOME:-$root/.rabbitry}
folder=$home/workers
worker=$(realpath -m "${WORKER:-${RELEASE:-$root/target/release}/users-worker}")

# A pid may have been taken by another program since it was written down. A process that nobody has reaped runs no program.
is_worker() {
    local program
    program=$(readlink "/proc/$1/exe") && [[ ${program% (deleted)} == "$worker" ]] # deleted: built anew since
}

pids() {
    local file pid
    for file in "$folder"/*.pid; do
        [[ -e $file ]] || continue
        pid=$(<"$file")
        if is_worker "$pid"; then echo "$pid"; elif [[ ! -e /proc/$pid ]]; then rm -f "$file"; fi
    done
}

start() {
    local count=$1 pid started=()
    mkdir -p "$folder"
    for ((i = 0; i < count; i++)); do
        # A session of its own, so that Ctrl-C in make does not reach it. The log is named after the pid, which is kept.
        (
            exec </dev/null >"$folder/$BASHPID.log" 2>&1
            RABBITRY_HOME=$home exec setsid "$worker"
        ) &
        pid=$!
        started+=("$pid")
        echo "$pid" >"$folder/$pid.pid"
        echo "worker $pid started, its log is $folder/$pid.log"
    done
    # A worker that cannot start says so within moments; one that waits for its broker stays.
    sleep 0.3
    for pid in "${started[@]}"; do
        jobs -pr | grep -qx "$pid" || { tail -n 3 "$folder/$pid.log" >&2; exit 78; }
    done
}

stop() {
    local pid running
    running=$(pids)
    for pid in $running; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in $running; do
        for ((i = 0; i < 300; i++)); do
            is_worker "$pid" || break
            sleep 0.1
        done
        if is_worker "$pid"; then
            echo "worker $pid does not stop, killing it; what is unfinished will be delivered again" >&2
            kill -KILL "$pid" 2>/dev/null || true
        fi
        rm -f "$folder/$pid.pid"
        echo "worker $pid stopped"
    done
}

case ${1:-} in
    start) start "${2:-1}" ;;
    stop) stop ;;
    pids) pids ;;
    list)
        for pid in $(pids); do echo "worker $pid is running, its log is $folder/$pid.log"; done
        [[ -n $(pids) ]] || echo "no worker was started in the background (make workers N=2 starts two)"
        ;;
    *)
        echo "usage: $0 start [N] | stop | list | pids" >&2
        exit 2
        ;;
esac
