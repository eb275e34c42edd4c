#!/usr/bin/env bash
# Three hundred kills of servers and a hundred of trainers, from the repository's root:
#
#   tests/faults/kills.sh [SEED]
#
# Ends with a non-zero code unless nothing was lost, nothing applied twice, and every bit is right.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly SEED="${1:-1}"
bazel build //tests/faults:kill_test
bazel-bin/tests/faults/kill_test --kills=300 --seed="$SEED"
bazel-bin/tests/faults/kill_test --kills=100 --seed="$SEED" --victims=trainers
