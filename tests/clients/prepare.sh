#!/usr/bin/env bash
# Makes the Python environment of the tests with other clients, in a folder that is kept: tests/clients/prepare.sh FOLDER
set -euo pipefail

here=$(dirname "${BASH_SOURCE[0]}")
folder=$1
if [[ -x $folder/bin/python ]] && cmp -s "$here/requirements.txt" "$folder/requirements.txt"; then exit 0; fi

if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    # shellcheck source-path=SCRIPTDIR source=../../bin/apt.sh
    . "$here/../../bin/apt.sh"
    if ! may_install python3 python3-venv; then
        echo "the tests with other clients need python3 with venv and pip; install it and run the tests again" >&2
        exit 1
    fi
    install_packages python3 python3-venv
fi
rm -rf "$folder"
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
cp "$here/requirements.txt" "$folder"
