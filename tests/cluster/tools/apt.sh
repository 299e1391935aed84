#!/usr/bin/env bash
# Install what real nodes need and the machine lacks, on Debian and Ubuntu: container runtime, CNI plugins, netfilter.
# Looks for programs, not packages, so a machine with Docker keeps its own containerd.
set -euo pipefail

missing=()
need() { # PROGRAM PACKAGE
    PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || missing+=("$2")
}
need containerd containerd
need runc runc
need ip iproute2
need iptables iptables
need conntrack conntrack
need nsenter util-linux
[ -x /usr/lib/cni/bridge ] || [ -x /opt/cni/bin/bridge ] || missing+=(containernetworking-plugins)
[ ${#missing[@]} -gt 0 ] || exit 0

fail() {
    printf 'real nodes: %s are missing and cannot be installed\n  cause:  %s\n  remedy: install them\n' "${missing[*]}" "$1" >&2
    exit 2
}
[ "$(id -u)" = 0 ] || fail "not root"
command -v apt-get >/dev/null || fail "no apt-get on this machine"
echo "real nodes: installing ${missing[*]} with apt" >&2
{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >&2 \
    || fail "apt-get failed, see above"
