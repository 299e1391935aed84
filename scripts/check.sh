#!/usr/bin/env bash
# Everything that `make check` checks. All steps run; the last line names those that failed.
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"

failed=()
step() {
    local name=$1 started=$SECONDS output
    shift
    if output=$("$@" 2>&1); then
        printf 'ok    %-24s %3ds\n' "$name" $((SECONDS - started))
    else
        printf 'FAIL  %-24s %3ds   (%s)\n%s\n' "$name" $((SECONDS - started)) "$*" "$output"
        failed+=("$name")
    fi
}

step "lint" ruff check .
step "format" ruff format --check .
step "types" mypy
step "layers" lint-imports
step "sources" python scripts/check_sources.py
step "generated CRDs" python scripts/generate_crds.py --check
step "generated pages" python scripts/generate_docs.py --check
step "chart schema" python scripts/generate_chart_schema.py --check
step "chart pages" python scripts/generate_chart_docs.py --check
step "dashboards" python scripts/generate_dashboards.py --check
step "dashboard lint" python scripts/lint_dashboards.py
step "spec coverage" python scripts/spec_coverage.py --check
step "links" python scripts/check_links.py
step "rules" python scripts/check_rules.py

if [ ${#failed[@]} -gt 0 ]; then
    printf 'check failed: %s\n' "$(IFS=,; echo "${failed[*]}")"
    exit 1
fi
echo "check passed"
