#!/usr/bin/env bash
# Tests the claims of the paper that the model is from: runs the sweep of each, and writes one report with a verdict for each.
#
#   bash jobs/paper/run.sh [--full] [--output FOLDER] [--ranks N] [CLAIM…]
#
#   CLAIM            link, phases, …: the names of jobs/paper/*.yaml (default: all)
#   --full           the larger version of each, for a cluster: the lines "# --full:" of the configs
#   --output FOLDER  where results and report go (results/paper, with --full results/paper-full)
#   --ranks N        MPI ranks (one a core)
#
# 20 to 25 minutes on 2 cores. Run again it goes on with what is not done. SGDMAP in the environment names another program than
# build/src/sgdmap, which is built.
set -euo pipefail
cd "$(dirname "$0")/../.."
. jobs/packages.sh

usage() { sed -n '2,12s/^# \{0,1\}//p' jobs/paper/run.sh; }
wrong() { # a mistake in the arguments, in one line
  echo "run.sh: $1; bash jobs/paper/run.sh -h tells more" >&2
  exit 2
}

full="" output="" ranks="" claims=()
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) usage; exit 0 ;;
    --full) full=1 ;;
    --output | --ranks)
      [ $# -ge 2 ] || wrong "$1 needs a value"
      if [ "$1" = --output ]; then output=$2; else ranks=$2; fi
      shift ;;
    -*) wrong "there is no option $1" ;;
    *)
      [ -f "jobs/paper/$1.yaml" ] || wrong "there is no claim $1"
      claims+=("$1") ;;
  esac
  shift
done
output=${output:-results/paper${full:+-full}}
ranks=${ranks:-$(nproc)}
[[ $ranks =~ ^[1-9][0-9]*$ ]] || wrong "--ranks $ranks is no number of ranks"
if [ ${#claims[@]} -eq 0 ]; then
  mapfile -t claims < <(jobs/paper/report.py --list)
fi

program=${SGDMAP:-build/src/sgdmap}
if [ -n "${SGDMAP:-}" ]; then
  [ -x "$program" ] || wrong "SGDMAP names $SGDMAP, which is no program"
else
  if [ ! -x "$program" ]; then
    # shellcheck disable=SC2086
    install_packages $SGDMAP_PACKAGES_BUILD
    echo "building (a minute or two)"
  fi
  build build --buildtype=release # an older build is brought up to date
fi
mkdir -p "$output" 2>/dev/null || wrong "the folder $output cannot be made"

trap 'echo "interrupted; the same command again goes on" >&2; exit 75' INT TERM HUP
start=$SECONDS
for claim in "${claims[@]}"; do
  config=jobs/paper/$claim.yaml file=$output/$claim.h5 overrides=() status=0
  if [ ! -f "$config" ]; then
    echo "== $claim: there is no $config"
    continue
  fi
  if [ -n "$full" ]; then
    while IFS= read -r line; do overrides+=(--set "$line"); done < <(sed -n 's/^# --full: //p' "$config")
  fi
  echo "== $claim ($(sed -n 's/^title: *"\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' "$config"))"
  mpirun --oversubscribe -n "$ranks" "$program" run "$config" -o "$file" "${overrides[@]}" || status=$?
  # mpirun has exit statuses of its own: only the file says whether the sweep is complete.
  if ! "$program" status "$file" --json 2>/dev/null | grep -q '"fraction": 1[,}]'; then
    echo "run.sh: $claim is not complete (mpirun ended with $status); the same command again goes on" >&2
    exit $((status > 1 ? status : 75))
  fi
done
echo "== report (all sweeps: $((SECONDS - start)) s)"
jobs/paper/report.py "$output"
