#!/bin/sh
# Plays the gate's life in a bare folder, with the installed program: `sh play.sh [PROGRAM]`. Nothing of GitHub or GitLab is
# needed. Ends with 0 if every step did what it should.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
case "${1:-terrabench}" in
*/*) TERRABENCH=$(CDPATH='' cd -- "$(dirname -- "$1")" && pwd)/$(basename -- "$1") ;;
*) TERRABENCH=${1:-terrabench} ;;
esac
export TERRABENCH TERRABENCH_SUITE=geobench
run="--demo --task m-eurosat --partition default"
export TERRABENCH_ARGS="$run"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TERRABENCH_CACHE="${TERRABENCH_CACHE:-$work/cache}"
mkdir "$work/repository"
cd "$work/repository"

gate() { sh "$here/gate.sh" "$@"; }
fail() { echo "failed: $*" >&2; exit 1; }
expect() { [ "$(cat terrabench-report/exit-code)" = "$1" ] || fail "expected exit code $1 of check, found $(cat terrabench-report/exit-code)"; }

echo "== without a reference, the first step says how to make one"
gate restore 2> told && fail "a missing reference passed"
grep -q 'gate.sh accept' told || fail "no advice in: $(cat told)"

echo "== the maintainer accepts the first records and commits reference/"
gate measure
gate accept
cp "$here/check.toml" reference/check.toml
[ -n "$(ls reference/records 2>/dev/null || ls reference/*/records)" ] || fail "reference/ has no records"

echo "== a pull request that changes nothing passes; the records come from the cache"
gate restore | grep -q 'earlier runs: [1-9]' || fail "no records were restored"
gate measure 2> told
grep -q 'recorded before' told || fail "a finished cell was computed again: $(cat told)"
gate check
expect 0
grep -q '<testsuite' terrabench-report/check.xml || fail "no JUnit"
gate comment | grep -q 'passed' || fail "the comment does not say that it passed"
gate verdict

echo "== a pull request that breaks the model fails, and the comment shows the table"
rm -rf terrabench-results
gate restore > told
TERRABENCH_ARGS="$run --weights random:1" gate measure
gate check
expect 1
grep -q 'failure' terrabench-report/check.xml || fail "JUnit shows no failure"
gate comment > comment.md
grep -q '<!-- terrabench -->' comment.md || fail "the comment has no marker"
grep -q 'm-eurosat' comment.md || fail "the comment has no table: $(cat comment.md)"
if gate verdict; then fail "the verdict let it pass"; fi

echo "== the maintainer accepts the new records"
gate accept
gate check
expect 0
gate verdict
echo "played: every step did what it should"
