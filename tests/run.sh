#!/usr/bin/env bash
# Installs, builds and runs all tests.
#
#   bash tests/run.sh              everything: tests, formatting, lint, the unit and mpi suites under ASan and UBSan, and
#                                  the config reader under libFuzzer for a minute or SGDMAP_FUZZ_SECONDS
#   bash tests/run.sh --quick      the tests alone
set -euo pipefail
cd "$(dirname "$0")/.."
. jobs/packages.sh
quick=no
case "${1:-}" in
  "") ;;
  --quick) quick=yes ;;
  *) sed -n '2,6s/^# \{0,1\}//p' tests/run.sh; [ "$1" = "-h" ] || [ "$1" = "--help" ] && exit 0 || exit 2 ;;
esac
# shellcheck disable=SC2086
install_packages $SGDMAP_PACKAGES_BUILD $SGDMAP_PACKAGES_TEST

failures=()
step() { # step NAME COMMAND…: runs it, remembers a failure, goes on
  local name=$1 start=$SECONDS
  shift
  echo "== $name"
  if "$@"; then
    echo "== $name: ok ($((SECONDS - start)) s)"
  else
    failures+=("$name")
    echo "== $name: FAILED ($((SECONDS - start)) s)"
  fi
}

build build --buildtype=release
step "tests" meson test -C build --print-errorlogs
if [ "$quick" = no ]; then
  step "formatting" clang-format --dry-run --Werror src/*.[ch] include/sgdmap/*.h tests/*.[ch] tests/bench/*.[ch] \
    tests/fuzz/*.c
  # What ends in _isa.c is compiled by its flags alone; clang-tidy's "N warnings generated" says nothing.
  step "lint" bash -c 'set -o pipefail
    ls src/*.c | grep -v _isa | xargs -n 4 -P "$(nproc)" clang-tidy -p build --quiet 2> >(grep -v "warnings\? \(generated\|treated\)" >&2)'
  build build-sanitize --buildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false
  step "unit and mpi under ASan and UBSan" \
    env ASAN_OPTIONS=abort_on_error=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
    meson test -C build-sanitize --suite unit --suite mpi --print-errorlogs -t 4
  CC=clang build build-fuzz -Dfuzz=true --buildtype=debugoptimized
  step "fuzzing of the config reader" \
    meson test -C build-fuzz --suite fuzz --print-errorlogs --test-args="-max_total_time=${SGDMAP_FUZZ_SECONDS:-60}"
fi

# "N passed, M failed" over all meson runs.
count() { cat build*/meson-logs/testlog.json 2>/dev/null | grep -o "\"result\": \"$1\"" | wc -l; }
echo "$(count OK) passed, $(($(count FAIL) + $(count TIMEOUT) + $(count ERROR))) failed"

if [ ${#failures[@]} -gt 0 ]; then
  printf 'failed: %s\n' "${failures[@]}"
  exit 1
fi
echo "all is well"
