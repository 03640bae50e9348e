#!/usr/bin/env bash
# Installs, builds and runs all tests.
#
#   bash tests/run.sh              everything: tests, formatting, lint, and the unit and mpi suites under ASan and UBSan
#   bash tests/run.sh --quick      the tests alone
set -euo pipefail
cd "$(dirname "$0")/.."
. jobs/packages.sh
quick=no
case "${1:-}" in
  "") ;;
  --quick) quick=yes ;;
  *) sed -n '2,5s/^# \{0,1\}//p' tests/run.sh; [ "$1" = "-h" ] || [ "$1" = "--help" ] && exit 0 || exit 2 ;;
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
  step "formatting" bash -c 'git ls-files "*.c" "*.h" | xargs clang-format --dry-run --Werror'
  step "lint" bash -c 'git ls-files "src/*.c" | grep -v kernels_isa | xargs -n 4 -P 2 clang-tidy -p build --quiet 2>/dev/null'
  build build-sanitize --buildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false
  step "unit and mpi under ASan and UBSan" \
    env ASAN_OPTIONS=abort_on_error=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
    meson test -C build-sanitize --suite unit --suite mpi --print-errorlogs -t 4
fi

if [ ${#failures[@]} -gt 0 ]; then
  printf 'failed: %s\n' "${failures[@]}"
  exit 1
fi
echo "all is well"
