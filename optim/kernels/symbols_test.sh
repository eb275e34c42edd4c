#!/bin/bash
# What objects compiled for one kind of CPU define: nothing that the linker could take for the same
# name of an object compiled for all.
set -euo pipefail

archives=0
for file in "$@"; do
  [[ ${file} == *.a ]] || continue
  archives=$((archives + 1))
  names=$(nm --defined-only --extern-only --format=posix "${file}" | awk 'NF > 1')
  kernels=$(grep -c "N9shardstep[46]AVX" <<<"${names}" || true)
  echo "${file}: ${kernels} names of kernels"
  if foreign=$(grep -v "N9shardstep[46]AVX" <<<"${names}"); then
    echo "${file} defines for everybody, compiled for one kind of CPU:"
    c++filt <<<"${foreign}"
    exit 1
  fi
done
[[ ${archives} -ge 3 ]] || { echo "expected an archive of each library, got: $*"; exit 1; }
