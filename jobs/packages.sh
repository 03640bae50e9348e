# shellcheck shell=bash
# Sourced by quickstart.sh and tests/run.sh: what to install, and how. Reads nothing but the machine's state.

SGDMAP_PACKAGES_BUILD="gcc libc6-dev git meson ninja-build pkg-config openmpi-bin libopenmpi-dev
  libhdf5-openmpi-dev libblis-serial-dev libsleef-dev librandom123-dev libcyaml-dev libyaml-dev libxxhash-dev
  python3 python3-numpy python3-h5py python3-xarray python3-netcdf4 python3-h5netcdf python3-matplotlib python3-plotly"
SGDMAP_PACKAGES_TEST="libcmocka-dev python3-pytest python3-pytest-xdist python3-scipy python3-torch python3-mpmath netcdf-bin clang-format clang-tidy
  clang libclang-rt-dev cppcheck shellcheck valgrind procps chromium"
# The report's test in a browser. Node.js of another origin has npm in it, and does not go along with Debian's.
command -v node >/dev/null || SGDMAP_PACKAGES_TEST+=" nodejs"
command -v npm >/dev/null || SGDMAP_PACKAGES_TEST+=" npm"
# The cluster of emulated nodes, which only root can make.
[ "$(id -u)" -ne 0 ] || SGDMAP_PACKAGES_TEST+=" slurm-wlm munge iproute2"

# The packages among the arguments that are not installed, on one line.
missing_packages() {
  local package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || printf '%s ' "$package"
  done
}

# Runs a command whose output goes to FILE; on a terminal its last line tells how far it is: watched FILE COMMAND…
watched() {
  local log=$1 watcher="" status=0
  shift
  if [ -t 2 ]; then
    while kill -0 $$ 2>/dev/null && sleep 0.5; do
      printf '\r  %.70s\033[K' "$(tail -n 1 "$log" | tr -d '[:cntrl:]')" >&2
    done &
    watcher=$!
  fi
  "$@" >"$log" 2>&1 || status=$?
  if [ -n "$watcher" ]; then
    kill "$watcher"
    wait "$watcher" 2>/dev/null || :
    printf '\r\033[K' >&2
  fi
  return $status
}

# Installs what is missing of the arguments: as root, or with sudo; else says what is missing and stops.
install_packages() {
  local missing
  if ! command -v dpkg-query >/dev/null; then
    echo "sgdmap: this is not a Debian system: install what corresponds to" $SGDMAP_PACKAGES_BUILD >&2
    echo "        (README, \"Without root\"), then: meson setup build && ninja -C build" >&2
    exit 2
  fi
  missing=$(missing_packages "$@")
  [ -n "$missing" ] || return 0
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null || ! sudo -v; then
      echo "sgdmap: these packages are missing, and neither root nor sudo is there to install them:" >&2
      echo "  $missing" >&2
      echo "Ask your administrator for: apt-get install $missing" >&2
      echo "or see README, \"Without root\"." >&2
      exit 2
    fi
    as_root=(sudo)
  fi
  echo "installing: $missing"
  local log
  log=$(mktemp)
  # shellcheck disable=SC2086
  if ! watched "$log" "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
         sh -c 'apt-get update -q && apt-get install -yq --no-install-recommends "$@"' sh $missing; then
    tail -n 20 "$log" >&2
    echo "sgdmap: the packages could not be installed; the whole log is $log" >&2
    exit 2
  fi
  rm -f "$log"
}

# Sets up and builds a meson folder, quietly unless it fails: build FOLDER [OPTION…]
build() {
  local folder=$1 log
  shift
  log=$(mktemp)
  if ! watched "$log" build_folder "$folder" "$@"; then
    tail -n 40 "$log" >&2
    echo "sgdmap: the build failed; the whole log is $log" >&2
    exit 1
  fi
  rm -f "$log"
}

build_folder() {
  local folder=$1
  shift
  if [ -f "$folder/build.ninja" ]; then meson configure "$folder" "$@"; else meson setup "$folder" "$@"; fi && ninja -C "$folder"
}

# Open MPI refuses root without these two.
if [ "$(id -u)" -eq 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
# Where a rank is killed, mpirun (Open MPI 4.1 with PMIx 4.2) now and then waits for ever for a lock that the dead rank holds
# in shared memory; "hash" does without that memory. https://github.com/openpmix/openpmix/issues/1233
export PMIX_MCA_gds=${PMIX_MCA_gds:-hash}
