#!/usr/bin/env bash
# Has simulated servers make each of the mistakes that are seeded in them (SHARDSTEP_BUG in server/)
# and says what caught it, from the repository's root:
#
#   tests/seeded_bugs.sh [SIMULATION_TEST]
#
# Builds the test unless it is given. Ends with "seeded bugs: 14 of 14 caught", else with a non-zero
# code. A mistake is caught when a run fails that the servers pass without it: those runs come first.
set -euo pipefail

# In the order of a server's life: promises, the log, decisions, sessions, pushes, replies.
readonly BUGS=(
  no_ballot_check
  skip_sync
  skip_directory_sync
  acknowledge_before_log
  forget_calls_in_base
  replay_twice
  commit_on_one_server_only
  abort_although_all_prepared
  no_session_check
  wall_clock_leases
  reply_of_another_session
  apply_late_push
  reduce_in_order_of_arrival
  write_to_held_buffer
)
readonly SEEDS=300

simulation_test=${1:-}
if [[ -z $simulation_test ]]; then
  cd "$(dirname "${BASH_SOURCE[0]}")/.."
  bazel build //tests/simulation:simulation_test
  simulation_test=bazel-bin/tests/simulation/simulation_test
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT

if ! "$simulation_test" --seeds=50 --until-failure >"$log"; then
  grep '^seed ' "$log" || cat "$log"
  echo "seeded bugs: the simulation fails without any"
  exit 1
fi
tail -n 1 "$log"

caught=0
for bug in "${BUGS[@]}"; do
  code=0
  timeout 120 "$simulation_test" --bug="$bug" --seeds="$SEEDS" --until-failure >"$log" 2>&1 || code=$?
  # One that ended in another way has judged nothing.
  if ((code == 1)) && verdict=$(grep -m 1 -E '^seed |ERROR: AddressSanitizer' "$log"); then
    caught=$((caught + 1))
    printf '%-28s caught by simulation_test, %s\n' "$bug" "${verdict:0:200}"
  else
    printf '%-28s NOT caught (exit code %d): %s\n' "$bug" "$code" "$(tail -n 1 "$log")"
  fi
done
echo "seeded bugs: $caught of ${#BUGS[@]} caught"
((caught == ${#BUGS[@]}))
