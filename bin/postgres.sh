#!/usr/bin/env bash
# The PostgreSQL of this checkout.
#
# usage: postgres.sh up|down|status|url|logs|forget|delete
#   up      start the server and return when it is ready; from then on the programs use it
#   down    stop what `up` started; the data stay, and so does the choice
#   status  say what runs (exit code 0: ready, 3: not)
#   url     the store's URL, with the password
#   logs    the end of the server's log
#   forget  the programs use SQLite again; nothing is stopped or deleted
#   delete  delete the data of a server that is down
#
# environment:
#   DATABASE_URL   if it names a PostgreSQL, use that one and start none
#   POSTGRES_PORT  port to use; otherwise the standard one, or the next that is free
#   RABBITRY_HOME  where everything lies; default: .rabbitry in the checkout
#   WAIT_SECONDS   how long `up` waits; default 60
#
# PostgreSQL does not run as root: for root the server runs as the system user postgres, or nobody. If that user cannot
# reach the home (/root is nobody else's), its data lie in /var/lib/rabbitry. No cluster of the system's is touched,
# made or started; a Debian or Ubuntu without PostgreSQL gets the package postgresql.
set -euo pipefail

WAIT_SECONDS=${WAIT_SECONDS:-60}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
RABBITRY_HOME=${RABBITRY_HOME:-$HERE/../.rabbitry}
(umask 022 && mkdir -p "$RABBITRY_HOME") # the programs trust no folder that others may write
RABBITRY_HOME=$(cd "$RABBITRY_HOME" && pwd -P)
CHOICE=$RABBITRY_HOME/store.env
FILE=$RABBITRY_HOME/users.db
P=$RABBITRY_HOME/postgres

say() { printf '%s\n' "$*"; }
die() { printf 'postgres: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# ---- the server's user, and where it may write -----------------------------------------------------------------

server_user() { if id -u postgres >/dev/null 2>&1; then say postgres; else say nobody; fi; }
as_server() {
	if [ "$(id -u)" -ne 0 ]; then
		"$@"
	elif has setpriv; then
		setpriv --reuid "$(server_user)" --regid "$(id -g "$(server_user)")" --clear-groups -- "$@"
	else
		runuser -u "$(server_user)" -- "$@"
	fi
}

make_folders() {
	local mark
	mkdir -p "$P"
	DATA=$P/server
	if [ "$(id -u)" -eq 0 ]; then
		chmod go+x "$RABBITRY_HOME" "$P"
		if ! (cd / && as_server test -x "$P"); then
			mark=$(printf '%08x' "$(printf %s "$RABBITRY_HOME" | cksum | cut -d' ' -f1)")
			DATA=/var/lib/rabbitry/$mark
			(umask 022 && mkdir -p /var/lib/rabbitry)
		fi
		[ -d "$DATA" ] || install -d -m 700 -o "$(server_user)" -g "$(id -gn "$(server_user)")" "$DATA"
	else
		mkdir -p "$DATA" && chmod 700 "$DATA"
	fi
	LOG=$DATA/postgres.log
}

# ---- programs --------------------------------------------------------------------------------------------------

# Of the version that made the data, if there are data; otherwise the newest.
find_programs() {
	local made_by='' dir candidates=()
	[ ! -f "$DATA/data/PG_VERSION" ] || made_by=$(cat "$DATA/data/PG_VERSION")
	for dir in $(printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql@*/bin | sort -rV) \
		"$(has initdb && dirname "$(readlink -f "$(command -v initdb)")")"; do
		[ ! -x "$dir/initdb" ] || [ ! -x "$dir/postgres" ] || candidates+=("$dir")
	done
	for dir in ${candidates[@]+"${candidates[@]}"}; do
		if [ -z "$made_by" ] || [[ "$("$dir/postgres" --version)" =~ \ $made_by(\.|$|[^0-9]) ]]; then
			say "$dir"
			return
		fi
	done
	[ -z "${candidates[*]-}" ] || die "the data in $DATA were made by PostgreSQL $made_by, which is not here; install it, or move the data away"
}

# shellcheck source-path=SCRIPTDIR source=apt.sh
. "$HERE/apt.sh"
NO_CLUSTER=/etc/postgresql-common/createcluster.d/rabbitry.conf
INSTALLING=
remove_no_cluster() { [ -z "$INSTALLING" ] || as_root rm -f "$NO_CLUSTER"; }

install_package() {
	say "installing postgresql with apt-get, its log is $P/install.log"
	INSTALLING=yes
	{
		as_root mkdir -p "${NO_CLUSTER%/*}" && say "create_main_cluster = false" | as_root tee "$NO_CLUSTER" || return 1
		# First alone, so that its configuration is there when the server's package looks for it.
		install_packages postgresql-common && apt_get install postgresql
	} >"$P/install.log" 2>&1 9>&- || return 1
	remove_no_cluster
	INSTALLING=
}

# ---- the server ------------------------------------------------------------------------------------------------

# The pid stands in a file; whose it is now is told by its command line.
server_pid() {
	local pid words
	read -r pid 2>/dev/null <"$DATA/data/postmaster.pid" || return 0
	if [ -r "/proc/$pid/cmdline" ]; then
		words=$(tr '\0' ' ' <"/proc/$pid/cmdline")
	else
		words=$(ps -ww -o command= -p "$pid" 2>/dev/null || true)
	fi
	[[ "$words " != *"-D $DATA/data "* ]] || say "$pid"
}

# A server that was killed leaves its lock file, and where nobody collects dead processes (in a container) its pid stays
# taken for ever. Its sessions end by themselves; as long as one of them works in the data, the lock is left alone.
remove_dead_lock() {
	local pid end=$((SECONDS + WAIT_SECONDS))
	read -r pid 2>/dev/null <"$DATA/data/postmaster.pid" || return 0
	while grep -qs '^State:[[:space:]]*Z' "/proc/$pid/status" && [ "$SECONDS" -lt "$end" ]; do
		if ! readlink /proc/[0-9]*/cwd 2>/dev/null | grep -qxF "$DATA/data"; then
			rm -f "$DATA/data/postmaster.pid"
			return
		fi
		sleep 0.1
	done
}

busy() { # port
	# shellcheck disable=SC2016
	bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0"' "$1" 2>/dev/null
}

choose_port() {
	local port=${POSTGRES_PORT:-} earlier=''
	[[ ${port:-1} =~ ^[1-9][0-9]{0,4}$ && ${port:-1} -le 65535 ]] || die "POSTGRES_PORT=$port is not a port number"
	[ ! -f "$P/port" ] || earlier=$(cat "$P/port")
	for port in ${POSTGRES_PORT:-$earlier $(seq 5432 5932)}; do
		if ! busy "$port"; then
			say "$port"
			return
		fi
	done
	die "port ${POSTGRES_PORT:-5432 and those after it} in use; set POSTGRES_PORT to another, or leave it unset"
}

make_data() {
	[ -s "$P/password" ] || (umask 077 && od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$P/password")
	[ ! -f "$DATA/data/PG_VERSION" ] || return 0
	# A copy that the server's user can read.
	(umask 077 && as_server tee "$DATA/password" <"$P/password" >/dev/null)
	(cd / && as_server "$BIN/initdb" --pgdata "$DATA/data" --username rabbitry --pwfile "$DATA/password" \
		--auth scram-sha-256 --data-checksums --encoding UTF8 --locale C >"$P/initdb.log" 2>&1 9>&-) ||
		{ tail -n 5 "$P/initdb.log" >&2 && die "initdb failed, see above"; }
	rm -f "$DATA/password"
}

start() { # port
	local settings=(-c listen_addresses=127.0.0.1 -c port="$1" -c unix_socket_directories= -c max_connections=300)
	# In a session of its own, so that Ctrl-C in the caller's terminal does not reach it.
	(cd / && exec 9>&- && as_server env -i PATH="$PATH" LANG=C.UTF-8 \
		"$BIN/pg_ctl" start --silent --wait --timeout "$WAIT_SECONDS" --pgdata "$DATA/data" --log "$LOG" \
		-p "$BIN/postgres" -o "${settings[*]@Q}" </dev/null >/dev/null 2>&1)
}

start_somewhere() {
	local port
	for _ in 1 2 3; do
		port=$(choose_port)
		if start "$port"; then
			say "$port" >"$P/port"
			return
		fi
		# Another program may have taken the port in between.
		tail -n 20 "$LOG" | grep -q "could not bind" || break
	done
	tail -n 10 "$LOG" >&2 || true
	die "the server did not come up (WAIT_SECONDS=$WAIT_SECONDS), see above and $LOG"
}

own_url() { say "postgresql://rabbitry:$(cat "$P/password")@127.0.0.1:$(cat "$P/port")/rabbitry"; }

make_database() {
	# With nothing of the caller's PGSSLMODE, PGOPTIONS, PGSERVICE and their like.
	# The password in a file: arguments are there for every user to see.
	(umask 077 && say "*:*:*:*:$(cat "$P/password")" >"$P/pgpass")
	local tool=(env -i PATH="$PATH" LANG=C.UTF-8 PGPASSFILE="$P/pgpass" "$BIN/psql" -XAtq -h 127.0.0.1 -p "$(cat "$P/port")" -U rabbitry -d postgres)
	[ -n "$("${tool[@]}" -c "SELECT 1 FROM pg_database WHERE datname = 'rabbitry'")" ] || "${tool[@]}" -c "CREATE DATABASE rabbitry"
}

# ---- the commands ----------------------------------------------------------------------------------------------

lock_home() { # one `up` or `down` of this home at a time
	exec 9>"$P/lock"
	! has flock || flock -w 120 9 || die "another postgres.sh is busy with $P"
}

choose() { # URL; complete or not at all, and nobody else's to read
	if [ ! -f "$CHOICE" ] && [ -f "$FILE" ]; then
		tell_of_other_store "\"sqlite:$FILE\"" "\"\$($HERE/postgres.sh url)\""
	fi
	(umask 077 && say "DATABASE_URL=$1" >"$CHOICE.$$")
	mv -f "$CHOICE.$$" "$CHOICE"
}
# Nobody's users follow by themselves.
tell_of_other_store() { # COPY_FROM, COPY_TO
	say "store: what users there are stay in the other store; before the first worker starts,"
	say "  COPY_FROM=$1 COPY_TO=$2 rabbitry store copy"
	say "  takes them along"
}
chosen() { [ ! -f "$CHOICE" ] || sed -n 's/^DATABASE_URL=//p' "$CHOICE"; }
# A password may hold anything, and no part of it is printed.
without_password() { sed -E 's#://.*@#://***@#'; }

describe() {
	say "postgres: ready (pid $(server_pid))"
	say "  store       $(own_url | without_password)"
	say "  data        $DATA/data"
	say "  by hand     psql \"\$($HERE/postgres.sh url)\""
	say "  stop        $HERE/postgres.sh down"
}

up() {
	make_folders
	lock_home
	if [[ ${DATABASE_URL:-} == postgres*://* && $DATABASE_URL != "$(chosen)" ]]; then
		choose "$DATABASE_URL"
		say "postgres: the one that DATABASE_URL names is used, none is started"
		return
	fi
	BIN=$(find_programs)
	if [ -z "$BIN" ] && may_install postgresql; then
		install_package || say "postgres: installing failed, see $P/install.log" >&2
		BIN=$(find_programs)
	fi
	[ -n "$BIN" ] || die "no PostgreSQL here. Install it (Debian, Ubuntu: apt-get install postgresql; macOS: brew install postgresql@17), or set DATABASE_URL to one that runs."
	if [ -z "$(server_pid)" ]; then
		make_data
		remove_dead_lock
		start_somewhere
	fi
	make_database
	choose "$(own_url)"
	describe
}

down() {
	local pid end=$((SECONDS + WAIT_SECONDS))
	[ -d "$P" ] || return 0 # never used here
	make_folders
	lock_home
	pid=$(server_pid)
	if [ -z "$pid" ]; then
		say "postgres: not running"
		return
	fi
	kill -INT "$pid" # a fast shutdown: sessions are ended, everything is written
	kill -CONT "$pid" 2>/dev/null || true # a test may have frozen it
	while [ -n "$(server_pid)" ]; do
		[ "$SECONDS" -lt "$end" ] || die "the server (pid $pid) does not stop; its log is $LOG"
		sleep 0.1
	done
	say "postgres: stopped, its data are kept"
}

status() {
	[ -d "$P" ] || { say "postgres: not running" && return 3; }
	make_folders
	if [ -n "$(server_pid)" ] && busy "$(cat "$P/port")"; then
		describe
	elif [ -n "$(chosen)" ] && [ ! -s "$P/port" ]; then
		say "postgres: not ours: $(chosen | without_password)"
	else
		say "postgres: not running"
		return 3
	fi
}

url() {
	[ -n "$(chosen)" ] || die "no PostgreSQL is chosen: $HERE/postgres.sh up"
	chosen
}

forget() {
	[ -f "$CHOICE" ] || return 0
	tell_of_other_store "'$(chosen | without_password)'" "\"sqlite:$FILE\""
	rm -f "$CHOICE"
}

delete() {
	[ -d "$P" ] || return 0
	make_folders
	lock_home
	[ -z "$(server_pid)" ] || die "it runs; stop it first: $HERE/postgres.sh down"
	rm -rf "$DATA" "$P" "$CHOICE"
}

logs() {
	make_folders
	tail -n 100 "$LOG"
}

trap remove_no_cluster EXIT
case ${1:-} in
up | down | status | url | logs | forget | delete) "$1" ;;
-h | --help | help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}" ;;
*) die "usage: postgres.sh up|down|status|url|logs|forget|delete (--help says more)" ;;
esac
