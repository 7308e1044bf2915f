#!/usr/bin/env bash
# Says which Rust is needed, and where it comes from, if there is none or one that is too old.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

needed=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
found=$(rustc --version 2>/dev/null | cut -d' ' -f2) || true
if ! command -v cargo >/dev/null || [[ $(printf '%s\n' "$needed" "$found" | sort -V | head -n 1) != "$needed" ]]; then
    echo "Rust $needed or later is needed, and ${found:-none} is here; https://rustup.rs tells how to install it" >&2
    exit 1
fi
