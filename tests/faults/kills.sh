#!/usr/bin/env bash
# Three hundred kills of servers and a hundred of trainers, and fifty of servers in the middle of
# steps that need sums over all of them, from the repository's root:
#
#   tests/faults/kills.sh [SEED] [KILL_TEST]
#
# Builds the test unless it is given. Ends with a non-zero code unless nothing was lost, nothing
# applied twice, and every bit is right.
set -euo pipefail

seed=${1:-1}
kill_test=${2:-}
if [[ -z $kill_test ]]; then
  cd "$(dirname "${BASH_SOURCE[0]}")/../.."
  bazel build //tests/faults:kill_test
  kill_test=bazel-bin/tests/faults/kill_test
fi
"$kill_test" --kills=300 --seed="$seed"
"$kill_test" --kills=100 --seed="$seed" --victims=trainers
"$kill_test" --kills=50 --seed="$seed" --coupled
