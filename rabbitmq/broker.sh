#!/usr/bin/env bash
# The RabbitMQ broker of this checkout.
#
# usage: broker.sh up|down|delete|status|wait|logs [-f]|env|ctl COMMAND
#   up      start the broker and return when it is ready; does nothing if it already is
#   down    stop what `up` started; the data stay
#   delete  delete the data of a broker that is down
#   status  say what runs (exit code 0: ready, 3: not)
#   wait    return when the broker is ready
#   logs    the broker's log
#   ctl     rabbitmqctl on this broker
#   env     the connection settings, for: eval "$(broker.sh env)"
#
# environment:
#   AMQP_URL       use this broker and start none (AMQP_MANAGEMENT_URL: its management API)
#   AMQP_PORT, MANAGEMENT_PORT, PROMETHEUS_PORT
#                  ports to use; otherwise the standard ones, or the next that are free
#   RABBITRY_HOME  where everything lies; default: .rabbitry in the checkout
#   WAIT_SECONDS   how long `up` and `wait` wait; default 60
#
# Nothing outside the home is touched, except that `up` installs the rabbitmq-server package on a Debian or Ubuntu
# that has neither RabbitMQ nor Docker.
set -euo pipefail

IMAGE=rabbitmq:4.3.6-management
WAIT_SECONDS=${WAIT_SECONDS:-60}
STOP_SECONDS=30
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
RABBITRY_HOME=${RABBITRY_HOME:-$HERE/../.rabbitry}
(umask 022 && mkdir -p "$RABBITRY_HOME") # the programs trust no folder that others may write
RABBITRY_HOME=$(cd "$RABBITRY_HOME" && pwd -P)
STATE=$RABBITRY_HOME/state.env
B=$RABBITRY_HOME/broker
LOG=$B/log/broker.log
LOCKS=/tmp/rabbitry-$(id -u)
# Stands on the command line of every process of this home. Processes are found by it, not by a stored pid, which
# may belong to somebody else by now.
MARK=rabbitry_$(printf '%08x' "$(printf %s "$RABBITRY_HOME" | cksum | cut -d' ' -f1)")

say() { printf '%s\n' "$*"; }
die() { printf 'broker: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }
bounded() { if has timeout; then timeout "$@"; else shift && "$@"; fi; }
state() { [ ! -f "$STATE" ] || sed -n "s/^$1=//p" "$STATE"; } # never sourced: a URL may hold anything

# ---- processes -------------------------------------------------------------------------------------------------

process() { # pattern of the whole command line
	local pid words
	if [ -r /proc/self/cmdline ]; then
		for pid in $(grep -slF -e "$MARK" /proc/[0-9]*/cmdline || true); do
			words=$(tr '\0' ' ' 2>/dev/null <"$pid") || continue
			pid=${pid#/proc/}
			say "${pid%/cmdline} $words"
		done
	else
		ps -axww -o pid=,command=
	fi | while read -r pid words; do
		# shellcheck disable=SC2053 # it is a pattern
		[[ "$words " != $1 ]] || say "$pid"
	done
}
node_pid() { process "*beam*-$MARK *"; }
epmd_pid() { process "$MARK-epmd *"; }
container_runs() { [ -f "$B/container" ] && [ "$(docker inspect -f '{{.State.Running}}' "$MARK" 2>/dev/null)" = true ]; }
running() { if [ -n "$(node_pid)" ]; then say node; elif container_runs; then say docker; fi; }

# Runs a program in its own session, so that Ctrl-C in the caller's terminal does not reach it, in the home's folder,
# with nothing of the caller's environment and none of the locks. Its pid is then in LAUNCHED.
SESSION=(setsid)
has setsid || SESSION=(perl -MPOSIX -e 'POSIX::setsid(); exec @ARGV')
launch() { # output file, NAME=value ..., "${SESSION[@]}", program, arguments
	local output=$1
	shift
	(
		give_back_claims
		cd "$B"
		ulimit -Sn 65536 2>/dev/null || ulimit -Sn "$(ulimit -Hn)" # a node's default of connections needs more than 1024
		exec env -i PATH="$PATH:/usr/sbin:/usr/bin:/sbin:/bin" HOME="$B" LANG=C.UTF-8 "$@" </dev/null >"$output" 2>&1 9>&-
	) &
	LAUNCHED=$!
}

end_process() { # node_pid|epmd_pid
	local pid end=$((SECONDS + STOP_SECONDS))
	for pid in $("$1"); do
		kill -TERM "$pid" || true
		kill -CONT "$pid" || true # a test may have frozen it
	done 2>/dev/null
	# Asked again each time: a mere pid may be a zombie that nobody collects, or somebody else by now.
	while pid=$("$1") && [ -n "$pid" ]; do
		[ "$SECONDS" -lt "$end" ] || kill -KILL "$pid" 2>/dev/null || true
		[ "$SECONDS" -lt $((end + 10)) ] || die "process $pid cannot be ended"
		sleep 0.1
	done
}

stop_everything() {
	local node
	node=$(node_pid)
	end_process node_pid
	end_process epmd_pid
	# A node replaces an epmd that died by one without the mark. Asked like this, an epmd ends only if no node uses it.
	[ -z "$node" ] || epmd -port "$P_EPMD" -kill >/dev/null 2>&1 || true
	if [ -f "$B/container" ]; then
		docker stop -t "$STOP_SECONDS" "$MARK" >/dev/null 2>&1 || true
		docker rm -f "$MARK" >/dev/null 2>&1 || true
	fi
	rm -f "$STATE" "$B/node.pid" "$B/container"
}

# ---- ports -----------------------------------------------------------------------------------------------------

answers() { # host port
	# shellcheck disable=SC2016
	bounded 5 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>/dev/null
}

busy() { # port; the tables show listeners on every address of this machine
	grep -qsE ": [0-9A-F]+:$(printf %04X "$1") [0-9A-F]+:0000 0A " /proc/net/tcp /proc/net/tcp6 || answers 127.0.0.1 "$1" || answers ::1 "$1"
}

holder() { # port
	local who=
	if has ss; then who=$(ss -Hltnp "sport = :$1" 2>/dev/null | sed -n 's/.*users:((\([^)]*\)).*/\1/p' | head -n 1) || true; fi
	say "${who:-another program (a system-wide RabbitMQ, a container, the broker of another checkout?)}"
}

# A chosen port is claimed until this script ends, and by then the broker listens, so that two scripts never choose
# the same one. Without flock (macOS) the broker itself finds the clash, and `up` chooses again.
CLAIMS=()
claim() { # port
	local fd
	has flock || return 0
	exec {fd}>>"$LOCKS/port-$1"
	CLAIMS+=("$fd")
	flock -n "$fd"
}
give_back_claims() {
	local fd
	for fd in ${CLAIMS[@]+"${CLAIMS[@]}"}; do exec {fd}>&-; done
	CLAIMS=()
}

choose_port() { # name, standard port
	local var=P_$1 user=$1_PORT port
	port=${!user:-}
	[[ ${port:-1} =~ ^[1-9][0-9]{0,4}$ && ${port:-1} -le 65535 ]] || die "$user=$port is not a port number"
	for port in ${port:-${!var} $(seq "$2" $(($2 + 500)))}; do # the earlier one first, then the standard one and those after it
		if claim "$port" && ! busy "$port"; then
			printf -v "$var" %s "$port"
			return
		fi
	done
	[ -z "${!user:-}" ] || die "port $port ($user) is in use by $(holder "$port"). Stop that, or set $user to another port, or leave it unset."
	die "no free port from $2 to $port"
}

P_AMQP='' P_MANAGEMENT='' P_PROMETHEUS='' P_DISTRIBUTION='' P_EPMD=''
# shellcheck source=/dev/null
load_ports() { [ ! -f "$B/ports" ] || . "$B/ports"; }

choose_ports() {
	give_back_claims
	local name
	choose_port AMQP 5672
	choose_port MANAGEMENT 15672
	choose_port PROMETHEUS 15692
	choose_port DISTRIBUTION 25672
	choose_port EPMD 4369
	for name in ${!P_*}; do say "$name=${!name}"; done >"$B/ports"
}

# ---- readiness -------------------------------------------------------------------------------------------------

http() ( # method, path, file to send; prints the management API's answer
	exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/$P_MANAGEMENT"
	printf '%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\nConnection: close\r\n' "$1" "$2" >&3
	printf 'Content-Type: application/json\r\nContent-Length: %d\r\n\r\n' "$(wc -c <"${3:-/dev/null}")" >&3
	cat "${3:-/dev/null}" >&3
	bounded 10 cat <&3
)

# A node opens the AMQP port last, when it has booted. That guest may log in shows that it has its definitions, and the
# name that it is not another checkout's broker that took the port.
ready() {
	local answer
	answers 127.0.0.1 "$P_AMQP" && answer=$(http GET /api/overview || true) && [[ $answer == "HTTP/1.1 200 "* ]] &&
		{ [ -f "$B/container" ] || [[ $answer == *"\"node\":\"$(cat "$B/node-name")\""* ]]; }
}

# Once more after the boot, which skips a file that it cannot use without a word (3.10). Importing again changes nothing.
check_topology() {
	local answer
	answer=$(http POST /api/definitions "$HERE/definitions.json" || true)
	[[ $answer == "HTTP/1.1 20"* ]] || die "the broker refuses $HERE/definitions.json: ${answer##*$'\n'}"
}

wait_for() { # a command that fails when waiting is of no use any more
	local end=$((SECONDS + WAIT_SECONDS))
	until ready; do
		"$@" && [ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.1
	done
}

# ---- the private node ------------------------------------------------------------------------------------------

# The folder of RabbitMQ's own scripts. What distributions put on the PATH is a wrapper that changes to a system user.
find_scripts() {
	local program dir
	for program in "$(command -v rabbitmq-server || true)" /opt/homebrew/sbin/rabbitmq-server /usr/local/sbin/rabbitmq-server; do
		[ ! -x "$program" ] || dir=$(dirname "$(readlink -f "$program")")
		if [ -e "${dir:-}/rabbitmq-env" ]; then
			say "$dir"
			return
		fi
	done
	for dir in /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin; do [ ! -x "$dir/rabbitmq-server" ] || say "$dir"; done | sort -V | tail -n 1
}

write_configuration() { # folder of the definitions, as the broker sees it
	mkdir -p "$B/conf/definitions" "$B/log"
	# In the order of their names: the login brings the virtual host that the topology lives in.
	cp "$HERE/login.json" "$B/conf/definitions/1-login.json"
	cp "$HERE/definitions.json" "$B/conf/definitions/2-topology.json"
	cp "$HERE/enabled_plugins" "$B/conf/enabled_plugins"
	{ cat "$HERE/rabbitmq.conf" - && say "load_definitions = $1"; } >"$B/conf/rabbitmq.conf"
	chmod -R u=rwX,go=rX "$B/conf" # in a container another user reads it
}

start_node() { # folder of the scripts
	local epmd
	[ -s "$B/node-name" ] || say "$MARK@localhost" >"$B/node-name" # the data belong to the name, it outlives a renamed folder
	[ -s "$B/.erlang.cookie" ] || (umask 077 && od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$B/.erlang.cookie")
	has erl || die "RabbitMQ is installed in $1, but Erlang (erl) is not on the PATH"
	epmd=$(command -v epmd || find "$(dirname "$(readlink -f "$(command -v erl)")")/.." -path '*/erts-*/bin/epmd' | head -n 1)
	# Started here: the one that a node starts by itself stays behind without a trace of whose it is.
	# shellcheck disable=SC2016
	launch "$B/log/epmd.log" "${SESSION[@]}" bash -c 'exec -a "$0" "$@"' "$MARK-epmd" "$epmd" -port "$P_EPMD" -address 127.0.0.1
	launch "$B/log/startup.log" \
		RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_NODENAME="$(cat "$B/node-name")" \
		RABBITMQ_CONFIG_FILE="$B/conf/rabbitmq.conf" RABBITMQ_ENABLED_PLUGINS_FILE="$B/conf/enabled_plugins" \
		RABBITMQ_MNESIA_BASE="$B/data" RABBITMQ_MNESIA_DIR="$B/data/node" RABBITMQ_PID_FILE="$B/node.pid" \
		RABBITMQ_LOG_BASE="$B/log" RABBITMQ_LOGS="$LOG" ERL_CRASH_DUMP="$B/log/erl_crash.dump" \
		RABBITMQ_DIST_PORT="$P_DISTRIBUTION" ERL_EPMD_PORT="$P_EPMD" ERL_EPMD_ADDRESS=127.0.0.1 \
		RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} -$MARK yes" \
		"${SESSION[@]}" "$1/rabbitmq-server"
}
launched_lives() { kill -0 "$LAUNCHED" 2>/dev/null; }

up_node() { # folder of the scripts
	for _ in 1 2 3; do
		choose_ports
		write_configuration conf/definitions <<-CONF
			listeners.tcp.1 = 127.0.0.1:$P_AMQP
			management.tcp.ip = 127.0.0.1
			management.tcp.port = $P_MANAGEMENT
			prometheus.tcp.ip = 127.0.0.1
			prometheus.tcp.port = $P_PROMETHEUS
		CONF
		STARTED=yes
		start_node "$1"
		if wait_for launched_lives && [ -n "$(epmd_pid)" ]; then return; fi
		grep -qiE 'eaddrinuse|in use' "$B/log/startup.log" "$B/log/epmd.log" || break
		stop_everything # another program took one of the ports in between
	done
	grep -iE 'error|fail|in use|denied' "$B/log/startup.log" | cut -c -300 | head -n 20 >&2 || true
	die "the broker did not come up (WAIT_SECONDS=$WAIT_SECONDS), see above, $B/log/startup.log and $LOG. If its data are damaged and not needed, remove $B/data and try again."
}

# ---- Docker ----------------------------------------------------------------------------------------------------

up_docker() {
	choose_ports
	write_configuration /etc/rabbitmq/definitions </dev/null
	docker rm -f "$MARK" >/dev/null 2>&1 || true
	STARTED=yes
	touch "$B/container" "$B/volume"
	say "starting $IMAGE with Docker (the first time it is downloaded)"
	# The data lie in a volume: files of the container's user in the home could not be removed by an ordinary user.
	# The host name is fixed because RabbitMQ names its data after it.
	(give_back_claims && exec docker run -d --name "$MARK" --hostname rabbitry \
		-p "127.0.0.1:$P_AMQP:5672" -p "127.0.0.1:$P_MANAGEMENT:15672" -p "127.0.0.1:$P_PROMETHEUS:15692" \
		--mount "type=volume,source=$MARK,target=/var/lib/rabbitmq" \
		--mount "type=bind,source=$B/conf/rabbitmq.conf,target=/etc/rabbitmq/conf.d/90-rabbitry.conf,readonly" \
		--mount "type=bind,source=$B/conf/enabled_plugins,target=/etc/rabbitmq/enabled_plugins,readonly" \
		--mount "type=bind,source=$B/conf/definitions,target=/etc/rabbitmq/definitions,readonly" \
		"$IMAGE" >"$B/log/startup.log" 9>&-) || die "docker run failed, see above"
	wait_for container_runs || {
		docker logs --tail 40 "$MARK" >&2 || true
		die "the broker did not come up within $WAIT_SECONDS s, see its log above"
	}
}

# ---- installing ------------------------------------------------------------------------------------------------

# shellcheck source-path=SCRIPTDIR source=../bin/apt.sh
. "$HERE/../bin/apt.sh"
# An installed service is started at once, unless a policy-rc.d says no.
POLICY=/usr/sbin/policy-rc.d
POLICY_TEXT="# rabbitry's broker.sh: only while it installs rabbitmq-server"
INSTALLING=
remove_policy() {
	[ -z "$INSTALLING" ] || ! grep -qsF "$POLICY_TEXT" "$POLICY" || as_root rm -f "$POLICY"
	INSTALLING=
}

install_package() {
	local unit
	exec 8>>"$LOCKS/install"
	! has flock || flock 8
	[ -z "$(find_scripts)" ] || return 0 # another checkout was faster
	say "installing rabbitmq-server with apt-get, its log is $B/log/install.log"
	INSTALLING=yes
	if [ ! -e "$POLICY" ]; then
		printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_TEXT" | as_root tee "$POLICY" >/dev/null && as_root chmod 755 "$POLICY" || return 1
	fi
	{
		install_packages rabbitmq-server || return 1
		for unit in rabbitmq-server.service epmd.service epmd.socket; do
			! has systemctl || as_root systemctl disable "$unit" || true
			[ ! -d /run/systemd/system ] || as_root systemctl stop "$unit" || true # where a policy-rc.d of others said yes
		done
	} >"$B/log/install.log" 2>&1 8>&- 9>&-
	remove_policy
	exec 8>&-
}

# ---- the commands ----------------------------------------------------------------------------------------------

write_state() { # lines; complete or not at all, and nobody else's to read
	(umask 077 && printf '%s\n' "$@" >"$STATE.$$")
	mv -f "$STATE.$$" "$STATE"
}

external_answers() { # URL
	local rest=${1#*://} port=5672
	[[ $1 != amqps:* ]] || port=5671
	# A password may hold anything, and no part of it is printed.
	rest=${rest##*@}
	rest=${rest%%[/?]*}
	if [[ $rest =~ ^(.*):([0-9]+)$ ]]; then rest=${BASH_REMATCH[1]} port=${BASH_REMATCH[2]}; fi
	rest=${rest//[\[\]]/}
	answers "${rest:-localhost}" "$port" || { say "broker: nothing answers on ${rest:-localhost}:$port, where AMQP_URL points" >&2 && return 1; }
}

use_external() {
	[[ $AMQP_URL =~ ^amqps?://[^[:space:]]+$ ]] || die "AMQP_URL must look like amqp://user:password@host:5672/vhost"
	external_answers "$AMQP_URL" || die "start that broker, or unset AMQP_URL to get a private one"
	write_state "AMQP_URL=$AMQP_URL" "AMQP_MANAGEMENT_URL=${AMQP_MANAGEMENT_URL:-}" BROKER_KIND=external BROKER_PID= BROKER_PROMETHEUS_PORT=
}

describe() {
	local kind
	kind=$(state BROKER_KIND)
	say "broker: ready ($kind$(state BROKER_PID | sed 's/^./, pid &/'))"
	if [ "$kind" = external ]; then
		printf '  AMQP        %s\n  management  %s\n' "$(state AMQP_URL)" "$(state AMQP_MANAGEMENT_URL)" | sed -E 's#://.*@#://***@#'
		return
	fi
	say "  AMQP        $(state AMQP_URL)"
	say "  management  http://127.0.0.1:$P_MANAGEMENT (user guest, password guest)"
	say "  metrics     http://127.0.0.1:$P_PROMETHEUS/metrics"
	if [ "$kind" = docker ]; then say "  data        Docker volume $MARK"; else say "  data        $B/data"; fi
	say "  stop        $HERE/broker.sh down"
}

lock_home() { # one `up` or `down` of this home at a time
	mkdir -p "$B/log"
	chmod 700 "$B"
	exec 9>"$B/lock"
	! has flock || flock -w 120 9 || die "another broker.sh is busy with $B"
	load_ports
}

# Everybody may write to /tmp: another user may have made the folder first, with links to files of ours in it.
own_locks() {
	mkdir -m 700 "$LOCKS" 2>/dev/null || true
	[ -d "$LOCKS" ] && [ ! -L "$LOCKS" ] && [ -O "$LOCKS" ] ||
		die "ports are claimed in the folder $LOCKS, which cannot be made or is another user's: have it removed, then try again"
	chmod 700 "$LOCKS"
}

start_own() {
	local scripts
	stop_everything # what a crash left behind
	own_locks
	scripts=$(find_scripts)
	if [ -z "$scripts" ] && has docker && bounded 10 docker info >/dev/null 2>&1; then
		up_docker
		return
	fi
	if [ -z "$scripts" ] && may_install rabbitmq-server; then
		install_package || say "broker: installing rabbitmq-server failed, see $B/log/install.log" >&2
		scripts=$(find_scripts)
	fi
	[ -n "$scripts" ] || die "no RabbitMQ here. Install rabbitmq-server (Debian, Ubuntu: apt-get install rabbitmq-server; macOS: brew install rabbitmq), or start Docker, or set AMQP_URL to a broker that runs."
	up_node "$scripts"
}

still_running() { [ -n "$(running)" ]; }

up() {
	local kind name port
	lock_home
	kind=$(running)
	# After `eval "$(broker.sh env)"` AMQP_URL is set, and names our own broker.
	if [ -n "${AMQP_URL:-}" ] && { [ -z "$kind" ] || [ "$AMQP_URL" != "$(state AMQP_URL)" ]; }; then
		use_external
		describe
		return
	fi
	for name in AMQP MANAGEMENT PROMETHEUS; do
		port=P_$name name=${name}_PORT
		if [ -n "$kind" ] && [ "${!name:-${!port}}" != "${!port}" ]; then
			die "the broker already runs on port ${!port}, not on $name=${!name}: \`down\` first"
		fi
	done
	if [ -z "$kind" ]; then
		start_own
	else
		wait_for still_running || die "the broker runs but does not answer. Look at $LOG, or run \`down\` and \`up\`."
	fi
	[ -f "$STATE" ] || check_topology
	local was_running=$kind
	kind=$(running)
	write_state \
		"AMQP_URL=amqp://guest:guest@127.0.0.1:$P_AMQP/%2f" "AMQP_MANAGEMENT_URL=http://guest:guest@127.0.0.1:$P_MANAGEMENT" \
		"BROKER_KIND=$kind" "BROKER_PID=$(node_pid)" "BROKER_PROMETHEUS_PORT=$P_PROMETHEUS" \
		"BROKER_NODE=$([ "$kind" = docker ] || cat "$B/node-name")" "BROKER_EPMD_PORT=$P_EPMD"
	STARTED=
	if [ -n "$was_running" ]; then say "broker: ready ($kind), it ran already"; else describe; fi
	if [[ "$(http GET /api/health/checks/alarms || true)" == "HTTP/1.1 503 "* ]]; then
		say "broker: WARNING: it lacks disk space (less than 1 GB is free) or memory, and accepts no messages until there is more" >&2
	fi
}

down() {
	local said="not running"
	lock_home
	[ "$(state BROKER_KIND)" != external ] || said="the external one is left alone, and forgotten"
	[ -z "$(running)" ] || said="stopped, its data are kept"
	stop_everything
	say "broker: $said"
}

delete() {
	lock_home
	[ -z "$(running)" ] || die "it runs; stop it first: $HERE/broker.sh down"
	if [ -f "$B/volume" ]; then
		docker volume rm -f "$MARK" >/dev/null || die "the Docker volume $MARK with the data cannot be deleted, see above: start Docker, then try again"
	fi
	rm -rf "$B" "$STATE"
}

status() {
	local kind
	load_ports
	kind=$(running)
	if [ "$(state BROKER_KIND)" = external ]; then
		external_answers "$(state AMQP_URL)" || return 3
		describe
	elif [ -n "$kind" ] && [ -f "$STATE" ] && ready; then
		describe
	else
		say "broker: ${kind:-nothing} runs${kind:+, but it is not ready; its log is $LOG}"
		return 3
	fi
}

wait_ready() {
	local end=$((SECONDS + WAIT_SECONDS))
	until status >/dev/null; do
		[ "$SECONDS" -lt "$end" ] || die "not ready after $WAIT_SECONDS s"
		sleep 0.2
	done
	status
}

logs() {
	local follow=()
	if [ "${1:-}" = -f ] || [ -t 1 ]; then follow=(-f); fi
	if [ -f "$B/container" ]; then exec docker logs --tail 100 ${follow[@]+"${follow[@]}"} "$MARK"; fi
	[ -f "$LOG" ] || die "no log yet: $LOG"
	exec tail -n 100 ${follow[@]+"${follow[@]}"} "$LOG"
}

ctl() { # what rabbitmqctl takes
	if [ -f "$B/container" ]; then exec docker exec "$MARK" rabbitmqctl "$@"; fi
	[ -n "$(node_pid)" ] || die "no broker of this home is running: $HERE/broker.sh up"
	load_ports
	exec env HOME="$B" RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_NODENAME="$(cat "$B/node-name")" \
		ERL_EPMD_PORT="$P_EPMD" ERL_EPMD_ADDRESS=127.0.0.1 "$(find_scripts)/rabbitmqctl" "$@"
}

print_env() {
	local key text
	[ -f "$STATE" ] || die "no broker is running: $HERE/broker.sh up"
	while IFS='=' read -r key text; do printf 'export %s=%q\n' "$key" "$text"; done <"$STATE"
}

STARTED=
LAUNCHED=
cleanup() { # an `up` that did not succeed leaves nothing running
	remove_policy
	[ -n "$STARTED" ] || return 0
	[ -z "$LAUNCHED" ] || kill -TERM -- "-$LAUNCHED" 2>/dev/null || true
	stop_everything
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

case ${1:-} in
up | down | delete | status | logs | ctl) "$@" ;;
wait) wait_ready ;;
env) print_env ;;
-h | --help | help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}" ;;
*) die "usage: broker.sh up|down|delete|status|wait|logs [-f]|env|ctl COMMAND (--help says more)" ;;
esac
