#!/usr/bin/env bash
# Uses RabbitMQ's management UI in a real browser, as a person would, on a private broker with a worker of its own.
# SCREENSHOT=FILE writes the picture that docs/management-ui.md shows. What a failed run saw is left in target/ui.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

out=$(realpath -m "${CARGO_TARGET_DIR:-target}")/ui
packages=(chromium chromium-driver python3-selenium)

has() { command -v "$1" >/dev/null 2>&1; }
die() {
    echo "test-ui: $*" >&2
    exit 1
}

# Debian's package is for Debian's Python, which is not always the first one on the PATH.
find_python() {
    local candidate
    for candidate in ${PYTHON:-} /usr/bin/python3 python3; do
        if has "$candidate" && "$candidate" -c 'import selenium.webdriver' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

have_all() { has chromium && has chromedriver && find_python >/dev/null; }

# shellcheck source-path=SCRIPTDIR source=../../bin/apt.sh
. bin/apt.sh

install_browser() {
    # shellcheck source=/dev/null
    [[ "$(. /etc/os-release 2>/dev/null && echo "${ID:-}")" == debian ]] ||
        die "install Chromium, ChromeDriver and Selenium 4 for Python (as chromium, chromedriver, python3 on the PATH)"
    may_install "${packages[@]}" || exit 1
    echo "installing ${packages[*]} with apt-get, its log is $out/install.log"
    install_packages "${packages[@]}" >"$out/install.log" 2>&1 || die "the installation failed: $(tail -n 3 "$out/install.log")"
    have_all || die "${packages[*]} are installed, but chromium, chromedriver or Selenium cannot be found"
}

# In this order: the browser and its driver, which are the test's process group, then worker and broker.
finish() {
    if [[ -n $test ]]; then
        kill -TERM "$test" 2>/dev/null && wait "$test" || true
        kill -KILL -- "-$test" 2>/dev/null || true
    fi
    leave
}

rm -rf "$out"
mkdir -p "$out"
have_all || install_browser

# shellcheck source-path=SCRIPTDIR source=../private.sh
. tests/private.sh
test=
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
export WORKER=$target/debug/users-worker RABBITRY=$target/debug/rabbitry

cargo build --locked --bins
rabbitmq/broker.sh up
bin/workers.sh start 1
NO_PROXY='*' no_proxy='*' PYTHONDONTWRITEBYTECODE=1 setsid "$(find_python)" tests/ui/test_management_ui.py "$out" &
test=$!
status=0
wait "$test" || status=$?
if ((status != 0)); then
    cp -r "$RABBITRY_HOME/workers" "$out/"
    exit "$status"
fi
