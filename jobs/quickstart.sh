#!/usr/bin/env bash
# From a clone to a map: installs the packages, builds, runs the default sweep on this machine's cores, draws the map and writes the
# report.
#
#   bash jobs/quickstart.sh [FOLDER]      FOLDER: where the results go (results)
#
# Run again it goes on with what is not done. SGDMAP_RANKS sets the number of ranks.
set -euo pipefail
cd "$(dirname "$0")/.."
results=${1:-results}
. jobs/packages.sh

if [ "${results#-}" != "$results" ]; then
  sed -n '2,7s/^# \{0,1\}//p' jobs/quickstart.sh
  [ "$results" = "-h" ] || [ "$results" = "--help" ] && exit 0 || exit 2
fi
# shellcheck disable=SC2086
install_packages $SGDMAP_PACKAGES_BUILD
echo "building (a minute or two)"
build build --buildtype=release

mkdir -p "$results"
ranks=${SGDMAP_RANKS:-$(nproc)}
echo "training (jobs/default.yaml on $ranks cores)"
trap 'echo "interrupted; the same command again goes on" >&2; exit 75' INT TERM HUP
status=0
mpirun --oversubscribe -n "$ranks" build/src/sgdmap run jobs/default.yaml -o "$results/default.h5" || status=$?
# mpirun has exit statuses of its own: only the file says whether the sweep is complete.
if ! build/src/sgdmap status "$results/default.h5" --json | grep -q '"fraction": 1[,}]'; then
  echo "sgdmap: the sweep is not complete (mpirun ended with $status); the same command again goes on" >&2
  exit $((status > 1 ? status : 75))
fi
analysis/sgdmap-analysis map "$results/default.h5" -o "$results/default.png" >/dev/null
analysis/sgdmap-analysis report "$results/default.h5" -o "$results/default.html" >/dev/null

echo
echo "result file   $(realpath "$results")/default.h5"
echo "map           $(realpath "$results")/default.png"
echo "report        $(realpath "$results")/default.html"
