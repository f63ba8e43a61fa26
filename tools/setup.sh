#!/usr/bin/env bash
# Makes this machine and .venv ready; does nothing, quickly, when nothing is missing.
#
# On Debian and its relatives, and as root, missing system packages are installed with apt. Everywhere else this script only
# names what is missing and stops. The Python packages go into .venv at the root of the repository, from PyPI; .venv sees the
# system's own Python packages too, because bcc and nftables come from the operating system and not from PyPI.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PATH:/usr/sbin:/sbin # where ip, nft and conntrack live, and where other users than root do not look

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

is_debian() {
    local ID="" ID_LIKE=""
    if [[ -r /etc/os-release ]]; then . /etc/os-release; fi
    [[ " $ID $ID_LIKE " == *" debian "* || " $ID $ID_LIKE " == *" ubuntu "* ]] && command -v apt-get >/dev/null
}

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# The system's interpreter first: it is the one that the system's python3-bpfcc and python3-nftables are built for, while the
# first python3 on PATH may be a version manager's.
find_python() {
    local minor candidate
    if [[ -x /usr/bin/python3 ]] && new_enough /usr/bin/python3; then
        echo /usr/bin/python3
        return
    fi
    for minor in $(seq 30 -1 11); do
        candidate=$(command -v "python3.$minor") || continue
        if new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
}

no_python() {
    fail "polyplane needs Python 3.11 or newer, but /usr/bin/python3 is $(/usr/bin/python3 -V 2>&1) and there is no newer one on PATH" \
        "install one, for example python3.11 and python3.11-venv, and start again"
}

# Packages such as openvswitch-switch start a service when they are installed. The sandboxes have switches of their own, and this
# machine's must not be touched: Debian's policy-rc.d says so (Policy manual, section 9.3.3), unless there is one already.
without_services() {
    local policy=/usr/sbin/policy-rc.d result=0
    if [[ -e $policy ]]; then
        "$@"
        return
    fi
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    "$@" || result=$?
    rm -f "$policy"
    return "$result"
}

# --- what is missing -------------------------------------------------------------------------------------------------

missing=() # what next to nothing works without, by Debian's package names
wanted=()  # what only single backends or tests need
has() { command -v "$1" >/dev/null; }

has nft || missing+=(nftables)
has ip || missing+=(iproute2)
has conntrack || missing+=(conntrack)
has iptables || wanted+=(iptables)
has ipset || wanted+=(ipset)
has gcc || wanted+=(gcc libc6-dev) # for python-iptables
has tcpdump || wanted+=(tcpdump)
has ovs-vswitchd || wanted+=(openvswitch-switch)
if [[ -x /usr/bin/python3 ]]; then
    python=$(find_python)
    [[ -n $python ]] || no_python
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        if [[ $python == /usr/bin/python3 ]]; then missing+=(python3-venv); else missing+=("${python##*/}-venv"); fi
    fi
    if [[ $python == /usr/bin/python3 ]]; then # another interpreter could not see them
        found=$("$python" -c 'from importlib.util import find_spec; print(*filter(find_spec, ("bcc", "nftables")))')
        [[ $found == *bcc* ]] || wanted+=(python3-bpfcc)
        [[ $found == *nftables* ]] || wanted+=(python3-nftables)
    fi
else
    missing+=(python3 python3-venv)
    wanted+=(python3-bpfcc python3-nftables)
fi

if ((${#missing[@]} + ${#wanted[@]})); then
    if is_debian && ((EUID == 0)); then
        say "installing system packages: ${missing[*]} ${wanted[*]}"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q
        without_services apt-get install -q -y --no-install-recommends "${missing[@]}" "${wanted[@]}"
    elif ((${#missing[@]})); then
        if is_debian; then
            fail "system packages are missing: ${missing[*]}" \
                "run as root, or first: sudo apt-get install ${missing[*]} ${wanted[*]}"
        fi
        fail "this is not Debian, so please install what is missing yourself; Debian's names for it: ${missing[*]} ${wanted[*]}"
    elif [[ ! -e .venv/.ready ]]; then
        say "not installed, and needed by single backends or tests only: ${wanted[*]}"
    fi
fi

python=$(find_python)
[[ -n $python ]] || no_python

# --- the virtual environment -----------------------------------------------------------------------------------------

distributions=(core backends/*/ tests/conformance)
stamp=$(
    pwd
    "$python" -c 'import sys; print(sys.executable, sys.version)'
    cat tools/setup.sh tools/requirements.txt $(printf '%s/pyproject.toml ' "${distributions[@]%/}")
)
stamp=$(sha256sum <<<"$stamp")

if [[ ! -x .venv/bin/python || "$(cat .venv/.ready 2>/dev/null)" != "$stamp" ]]; then
    say "making .venv with $("$python" -V) from $python"
    "$python" -m venv --clear --system-site-packages .venv
    editable=()
    for distribution in "${distributions[@]%/}"; do editable+=(--editable "./$distribution"); done
    say "installing ${distributions[*]%/} and the tools of tools/requirements.txt from PyPI; the first time takes about half a minute"
    .venv/bin/python -m pip install --disable-pip-version-check --no-warn-script-location \
        "${editable[@]}" --requirement tools/requirements.txt |
        grep --line-buffered -E '^(Obtaining|Collecting|Building|Installing|Successfully)' | sed -u -E 's/^(.{,140}).*/    \1/'
    # A second decoder for the iptables backend's audits. It is compiled, and not worth failing for: its tests are skipped without.
    .venv/bin/python -m pip install --disable-pip-version-check --no-warn-script-location --quiet --editable './backends/iptables[second-look]' ||
        say "python-iptables cannot be built here: audits of legacy tables read iptables-save alone"
    echo "$stamp" >.venv/.ready
    say "ready"
fi
