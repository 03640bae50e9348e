#!/usr/bin/env bash
# Installs, builds and runs all tests.
#
#   bash tests/run.sh              everything: tests, formatting, lint, the unit suite and a sample of the mpi suite under
#                                  ASan and UBSan, and the config reader under libFuzzer for half a minute
#   bash tests/run.sh --quick      the tests alone
#   bash tests/run.sh --valgrind   the unit suite, and the result file at 1 and 3 ranks, under valgrind: half an hour and more
#
# SGDMAP_FUZZ_SECONDS, SGDMAP_KILLS, SGDMAP_HOSTILE_FILES and SGDMAP_ALL_FAULTS in the environment make the campaigns longer;
# SGDMAP_SAMPLE=1 takes all of the mpi suite under the sanitizers.
set -euo pipefail
cd "$(dirname "$0")/.."
. jobs/packages.sh
what=all
case "${1:-}" in
  "") ;;
  --quick) what=quick ;;
  --valgrind) what=valgrind ;;
  *) sed -n '2,10s/^# \{0,1\}//p' tests/run.sh; [ "$1" = "-h" ] || [ "$1" = "--help" ] && exit 0 || exit 2 ;;
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
if [ "$what" = valgrind ]; then
  valgrind="valgrind -q --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite --trace-children=no"
  step "unit under valgrind" meson test -C build --suite unit --wrapper "$valgrind" -t 20 --print-errorlogs
  # Open MPI leaks hundreds of blocks, and a child that guards HDF5 ends without freeing: accesses alone are looked at here.
  valgrind="valgrind -q --error-exitcode=9 --leak-check=no --trace-children=no"
  for ranks in 1 3; do
    # shellcheck disable=SC2086
    step "the result file under valgrind at $ranks ranks" env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
      mpirun --oversubscribe -n $ranks $valgrind build/tests/test_store
  done
else
  step "tests" meson test -C build --print-errorlogs
fi
if [ "$what" = all ]; then
  step "formatting" clang-format --dry-run --Werror src/*.[ch] include/sgdmap/*.h tests/*.[ch] tests/bench/*.[ch] \
    tests/fuzz/*.c
  # What ends in _isa.c is compiled by its flags alone; clang-tidy's "N warnings generated" says nothing.
  step "lint" bash -c 'set -o pipefail
    ls src/*.c | grep -v _isa | xargs -n 4 -P "$(nproc)" clang-tidy -p build --quiet 2> >(grep -v "warnings\? \(generated\|treated\)" >&2)'
  step "scripts" shellcheck -S warning jobs/*.sh jobs/*/*.sh jobs/submit tests/run.sh tests/slurm/cluster
  # cppcheck does not know of scoped cleanup (the attribute) in store.c, the only place that has it.
  step "cppcheck" cppcheck --enable=warning,performance,portability --std=c11 --suppress=missingIncludeSystem \
    --suppress=memleak:src/store.c -I include -I build/src -j "$(nproc)" --quiet --error-exitcode=1 \
    src tests/*.c tests/bench/*.c tests/fuzz/*.c
  # The compiler's warnings are for the code as it is, not as the sanitizers change it: GCC then warns of what cannot be.
  build build-sanitize --buildtype=debugoptimized -Doptimization=1 -Db_sanitize=address,undefined -Db_lundef=false -Dwerror=false
  sanitized() {
    SGDMAP_SAMPLE=${SGDMAP_SAMPLE:-6} SGDMAP_HOSTILE_FILES=${SGDMAP_HOSTILE_FILES:-16} \
      ASAN_OPTIONS=abort_on_error=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
      meson test -C build-sanitize --print-errorlogs -t 4 "$@"
  }
  step "unit under ASan and UBSan" sanitized --suite unit
  # One rank and three: two and four find the same.
  step "mpi under ASan and UBSan" sanitized --logbase testlog-mpi comm-1 comm-3 store-1 store-3 file sweep faults hostile
  CC=clang build build-fuzz -Dfuzz=true --buildtype=debugoptimized
  step "fuzzing of the config reader" \
    meson test -C build-fuzz --suite fuzz --print-errorlogs --test-args="-max_total_time=${SGDMAP_FUZZ_SECONDS:-30}"
fi

# "N passed, M failed" over all meson runs.
count() { cat build*/meson-logs/testlog*.json 2>/dev/null | grep -o "\"result\": \"$1\"" | wc -l; }
echo "$(count OK) passed, $(($(count FAIL) + $(count TIMEOUT) + $(count ERROR))) failed"

if [ ${#failures[@]} -gt 0 ]; then
  printf 'failed: %s\n' "${failures[@]}"
  exit 1
fi
echo "all is well"
