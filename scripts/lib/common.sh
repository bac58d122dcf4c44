# Shared by the scripts in this folder; source it, do not run it.
# Sets ROOT (the checkout) and OUT (everything that is generated).

set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
OUT=${OUT:-$ROOT/out}
export LC_ALL=C

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

# as_root COMMAND…: runs a command that needs root, through sudo if need be.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "'$*' needs root: run it as root, or install sudo"
    fi
}

# apt_install PACKAGE…: installs those packages that are not there yet.
apt_install() {
    local missing=() package
    command -v apt-get >/dev/null ||
        die "no apt-get here; install the equivalent of: $*"
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing with apt-get: ${missing[*]}"
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends)
    as_root "${install[@]}" "${missing[@]}" >"$OUT/apt-install.log" 2>&1 && return 0
    as_root apt-get update -q >"$OUT/apt-install.log" 2>&1 || true
    as_root "${install[@]}" "${missing[@]}" >>"$OUT/apt-install.log" 2>&1 || {
        tail -n 20 "$OUT/apt-install.log" >&2
        die "apt-get could not install: ${missing[*]}"
    }
}

# need COMMAND PACKAGE: makes sure that a command exists.
need() { command -v "$1" >/dev/null || apt_install "$2"; }

mkdir -p "$OUT"
