#!/usr/bin/env bash
# Installs what the build needs on Debian 12: Debian packages, and LibTorch unpacked from the PyPI
# wheel. Does nothing where all of it is there.
#
#   third_party/install.sh          what building and testing needs
#   third_party/install.sh --dev    also what tools/check.sh and --config=clang need
#
# Environment:
#   SHARDSTEP_LIBTORCH   folder of an existing LibTorch 2.11.0 (include/ and lib/): none is fetched
#   XDG_CACHE_HOME       where LibTorch and Bazel's disk cache go; default ~/.cache
set -euo pipefail

readonly LIBTORCH_VERSION=2.11.0
readonly PACKAGES=(
  # Compiler and build.
  g++ pkg-config bazel-bootstrap bazel-platforms bazel-rules-java bazel-rules-proto bazel-skylib
  # Libraries: WORKSPACE checks their versions.
  libabsl-dev libbenchmark-dev libcli11-dev libgmock-dev libgrpc++-dev libisal-dev libprotobuf-dev
  libspdlog-dev libssl-dev nlohmann-json3-dev protobuf-compiler protobuf-compiler-grpc zlib1g-dev
  # To fetch and unpack the wheels.
  ca-certificates python3-pip unzip
)
readonly DEV_PACKAGES=(clang-14 clang-format-14 clang-tidy-14 python3 shellcheck)
# Not asked for by name, but compiled into every result.
readonly TOOLCHAIN=(binutils g++-12 libc6-dev libfmt-dev libgrpc-dev libgtest-dev libstdc++-12-dev
  linux-libc-dev)

say() { echo "install: $*"; }
die() {
  echo "install: $*" >&2
  exit 1
}

check_system() {
  local id='' version='' architecture
  if [[ -r /etc/os-release ]]; then
    # shellcheck source=/dev/null
    id=$(. /etc/os-release && echo "${ID:-}")
    # shellcheck source=/dev/null
    version=$(. /etc/os-release && echo "${VERSION_ID:-}")
  fi
  architecture=$(uname -m)
  if [[ $id != debian || $version != 12 || $architecture != x86_64 ]]; then
    die "this is ${id:-an unknown system} $version on $architecture; shardstep builds on Debian 12" \
      "on x86_64, with that release's packages. Nothing was changed."
  fi
}

# Prints those of its arguments that are not installed.
missing_packages() {
  local installed package
  installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null || true)
  for package in "$@"; do
    grep -qxF "installed $package" <<<"$installed" || echo "$package"
  done
}

install_packages() {
  local as_root=()
  if [[ $EUID != 0 ]]; then
    command -v sudo >/dev/null || die "sudo is not installed. As root, run: apt-get update &&" \
      "apt-get install --no-install-recommends $*"
    as_root=(sudo)
  fi
  "${as_root[@]}" apt-get update -q
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -q --yes --no-install-recommends "$@"
}

# Succeeds if the folder $1 holds the right LibTorch.
is_libtorch() {
  grep -qsF "\"$LIBTORCH_VERSION" "$1/include/torch/headeronly/version.h" &&
    [[ -e $1/lib/libtorch_cpu.so && -e $1/lib/libc10.so ]]
}

# Into a folder beside $1 that is renamed at the end: what has the final name is whole.
install_libtorch() {
  local target=$1 work
  mkdir -p "$(dirname "$target")"
  work=$(mktemp -d "$target.XXXXXX")
  # shellcheck disable=SC2064  # $work is a local name: gone when the trap runs.
  trap "rm -rf '$work'" EXIT
  # Debian's own Python, for which the wheel was chosen, whatever else is on PATH.
  TMPDIR=$work /usr/bin/python3 -m pip download --quiet --no-cache-dir --no-deps --only-binary=:all: \
    --require-hashes --requirement "$here/libtorch-wheels.txt" --dest "$work/wheels"
  # Without the headers of protobuf and fmt that LibTorch bundles: they would hide Debian's.
  unzip -q "$work"/wheels/torch-*.whl 'torch/include/*' torch/lib/libtorch_cpu.so \
    torch/lib/libc10.so 'torch/lib/libgomp*' 'torch-*.dist-info/licenses/*' \
    -x 'torch/include/google/*' 'torch/include/fmt/*' -d "$work"
  unzip -q -j "$work"/wheels/nvidia_cuda_runtime-*.whl '*/libcudart.so.13' -d "$work/torch/lib"
  unzip -q -j "$work"/wheels/nvidia_cuda_cupti-*.whl '*/libcupti.so.13' -d "$work/torch/lib"
  mv "$work"/torch-*.dist-info/licenses "$work/torch/licenses"
  is_libtorch "$work/torch" || die "the wheel does not hold LibTorch $LIBTORCH_VERSION"
  rm -rf "$target"
  mv -T "$work/torch" "$target"
}

# Bazel cannot expand $HOME in .bazelrc, and its cache does not see /usr: so this file names the
# cache, and a digest of what was installed that enters the key of every action.
write_bazelrc() {
  local file=$here/../.bazelrc.local toolchain content
  toolchain=$( (
    dpkg-query -W -f '${Package} ${Version}\n' "${PACKAGES[@]}" "${TOOLCHAIN[@]}"
    "${CC:-gcc}" --version
  ) | sha256sum)
  content="# Written by third_party/install.sh; put settings of your own into user.bazelrc.
build \"--disk_cache=$cache/bazel\"
build --action_env=SHARDSTEP_TOOLCHAIN=${toolchain:0:16}
build \"--repo_env=SHARDSTEP_LIBTORCH=$libtorch\""
  [[ $content == "$(cat "$file" 2>/dev/null)" ]] || echo "$content" >"$file"
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
wanted=("${PACKAGES[@]}")
case "$*" in
  '') ;;
  --dev) wanted+=("${DEV_PACKAGES[@]}") ;;
  *) die "unknown argument '$*'; usage: third_party/install.sh [--dev]" ;;
esac
check_system

cache=${XDG_CACHE_HOME:-$HOME/.cache}/shardstep
libtorch=$(realpath -ms "${SHARDSTEP_LIBTORCH:-$cache/libtorch-$LIBTORCH_VERSION}")
if [[ -n ${SHARDSTEP_LIBTORCH:-} ]] && ! is_libtorch "$libtorch"; then
  die "SHARDSTEP_LIBTORCH is '$libtorch': that folder does not hold LibTorch $LIBTORCH_VERSION" \
    "(include/torch/headeronly/version.h, lib/libtorch_cpu.so, lib/libc10.so)"
fi
mapfile -t missing < <(missing_packages "${wanted[@]}")

# Under sudo, what is not for root belongs to the user who will build: a second run, as that user.
builder=
[[ $EUID != 0 || ${SUDO_USER:-root} == root ]] || builder=$SUDO_USER

if ((${#missing[@]} > 0)); then
  say "Debian packages, into /usr, as root (by sudo if you are not): ${missing[*]}"
  say "  at most 280 MB to fetch and 920 MB on disk; with --dev 350 MB and 1.3 GB"
fi
if [[ -z $builder ]] && ! is_libtorch "$libtorch"; then
  say "LibTorch $LIBTORCH_VERSION from PyPI, into $libtorch, without root"
  say "  544 MB to fetch and 500 MB on disk, 1.7 GB while it unpacks"
fi

((${#missing[@]} == 0)) || install_packages "${missing[@]}"
[[ -z $builder ]] || exec sudo -H -u "$builder" -- "$here/install.sh" "$@"
is_libtorch "$libtorch" || install_libtorch "$libtorch"
write_bazelrc
