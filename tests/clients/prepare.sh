#!/usr/bin/env bash
# Makes the Python environment of the tests with other clients, in a folder that is kept: tests/clients/prepare.sh FOLDER
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

folder=$1
wanted=$folder/requirements.txt
if [[ -x $folder/bin/python ]] && cmp -s requirements.txt "$wanted"; then exit 0; fi

if ! command -v python3 >/dev/null || ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    if ! command -v apt-get >/dev/null; then
        echo "the tests with other clients need python3 with venv and pip; install it and run the tests again" >&2
        exit 1
    fi
    as_root=()
    if ((EUID != 0)); then as_root=(sudo); fi
    "${as_root[@]}" apt-get update -q
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3 python3-venv
fi
rm -rf "$folder"
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt
cp requirements.txt "$wanted"
