# shellcheck shell=bash
# Sourced by the scripts that install packages on Debian and Ubuntu.

SUDO=()
as_root() { ${SUDO[@]+"${SUDO[@]}"} "$@"; }
apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qy -o APT::Install-Recommends=false -o DPkg::Lock::Timeout=300 -o Acquire::Retries=2 "$@"
}

# Whether packages can be installed here; if only the rights are missing, that is said.
may_install() { # packages
    [ -e /etc/debian_version ] && command -v apt-get >/dev/null || return 1
    [ "$(id -u)" -ne 0 ] || return 0
    # Without a terminal nobody can tell sudo a password.
    if [ -t 0 ]; then SUDO=(sudo); else SUDO=(sudo -n); fi
    if ! command -v sudo >/dev/null || ! as_root true; then
        echo "installing $* needs root, or sudo: run this as root, or install it by hand (apt-get install $*)" >&2
        return 1
    fi
}

install_packages() { # packages
    local tries=0
    # An update does not wait for another one to end. If none succeeds, the lists that are there may still do.
    until apt_get update || [ "$((tries += 1))" -ge 30 ]; do sleep 2; done
    apt_get install "$@"
}
