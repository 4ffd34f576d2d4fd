#!/usr/bin/env bash
# Runs every fuzz target of the module in turn: test/fuzz.sh [time each]
set -euo pipefail
cd "$(dirname "$0")/.."
each=${1:-20s}
grep -rlE '^func Fuzz' --include='*_test.go' . | while read -r file; do
  dir=$(dirname "$file")
  grep -oE '^func Fuzz[A-Za-z0-9_]+' "$file" | sed 's/^func //' | while read -r target; do
    echo "== $dir $target"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$each" "$dir"
  done
done
