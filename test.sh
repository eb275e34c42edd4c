#!/usr/bin/env bash
# Installs what is missing, builds everything and runs every test. Its arguments go to `bazel test`:
#
#   ./test.sh
#   ./test.sh --config=asan
#
# The last line is "N passed, N failed", in test targets; one that does not build has failed. Exits
# with 0 if everything was built and passed. Leaves bin/shardctl and bin/shardstep-server.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
{
  third_party/install.sh && tools/build_binaries.sh &&
    bazel test --keep_going --test_summary=short --show_result=0 "$@" //...
} 2>&1 | tee "$log" || status=$?

# The summary has a line for each test: "//optim:sgd_test   (cached) PASSED in 0.1s".
tests=$(grep -cE '^//[^ ]+ +[(A-Z]' "$log" || true)
passed=$(grep -cE '^//[^ ]+ +(\(cached\) )?PASSED' "$log" || true)
if ((status != 0 && tests == passed)); then
  echo "test.sh: the installation or the build failed: see above"
fi
echo "$passed passed, $((tests - passed)) failed"
exit "$status"
