#!/usr/bin/env bash
# Installs what is missing, builds, and trains a network on handwritten digits: three servers, two
# trainers. In the middle of it writes a checkpoint, kills all three servers, restores on two, and
# lets the trainers go on. One process without a fleet, which nothing interrupts, must come to the
# same parameters and optimizer state, bit for bit.
#
# The last line is "quickstart: ok accuracy=0.97 identical=yes version=... servers=3->2", or
# "quickstart: failed ..." and exit code 1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly SERVERS=3
readonly SERVERS_LATER=2
readonly TRAINERS=2
readonly LEAST_ACCURACY=0.95
# When to write the checkpoint, and how far to go on until the servers are killed.
readonly CHECKPOINT_VERSION=500
readonly LOST_VERSIONS=100
# In seconds: of a trainer with servers that are away, and of this script with training.
readonly PATIENCE=10
readonly LONGEST_WAIT=120

step='installing'
work=
fleet=
trainers=()

# Ends what this script started, however it ends itself.
finish() {
  local status=$? file
  trap '' INT TERM
  if ((${#trainers[@]} > 0)); then
    kill "${trainers[@]}" 2>/dev/null || true
    wait "${trainers[@]}" 2>/dev/null || true
  fi
  if [[ -n $work ]]; then
    # Succeeds without a word where no server of ours runs.
    for file in "$work"/*/fleet.json; do
      [[ ! -e $file ]] || bin/shardctl fleet down --fleet "$file" >/dev/null || status=1
    done
    ((status == 0)) || tail -n 20 "$work"/trainer-*.log 2>/dev/null || true
    rm -rf "$work"
  fi
  if ((status == 0)); then
    echo "quickstart: ok $result servers=$SERVERS->$SERVERS_LATER"
  else
    echo "quickstart: failed while $step"
    exit 1
  fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() {
  step=$1
  echo "quickstart: $step"
}

fail() {
  echo "quickstart: $*" >&2
  exit 1
}

# Starts $1 servers, with their data in the folder $2.
start_fleet() {
  bin/shardctl fleet up --servers "$1" --dir "$2" --checkpoints "$work/checkpoints" \
    --name quickstart --detach
  fleet=$2/fleet.json
}

# For the background: becomes the trainer, so that $! is the trainer and not a shell around it.
train() {
  exec bazel-bin/examples/digits/trainer --fleet "$fleet" --trainers "$TRAINERS" \
    --trainer-rank "$1" --patience "$PATIENCE"
}

# Trainer 0 shows its progress.
start_trainers() {
  train 1 2>"$work/trainer-1.log" &
  trainers=($!)
  train 0 &
  trainers+=($!)
}

# Waits until all trainers have ended, and fails unless each does so with exit code $1.
await_trainers() {
  local code trainer
  for trainer in "${trainers[@]}"; do
    code=0
    wait "$trainer" || code=$?
    ((code == $1)) || fail "a trainer ended with exit code $code, expected $1"
  done
  trainers=()
}

# The number behind "version" in what a verb prints for scripts.
version_in() { sed -n 's/^ *"version": \([0-9]*\),$/\1/p' <<<"$1"; }

# Waits until the optimizer is at version $1, while the trainers run.
await_version() {
  local version trainer begin=$SECONDS
  while true; do
    version=$(version_in "$(bin/shardctl optimizers --fleet "$fleet" --json)")
    ((${version:-0} < $1)) || return 0
    for trainer in "${trainers[@]}"; do
      kill -0 "$trainer" 2>/dev/null || fail "a trainer ended before version $1"
    done
    ((SECONDS - begin < LONGEST_WAIT)) || fail "no version $1 after $LONGEST_WAIT s"
  done
}

# SIGKILL, to servers of the folder $1 and to nothing else.
kill_servers() {
  local lock pid
  for lock in "$1"/server-*/LOCK; do
    pid=$(<"$lock")
    grep -qzxF -- "$(dirname "$lock")" "/proc/$pid/cmdline" || fail "$lock: process $pid is no server"
    kill -KILL "$pid"
  done
}

say 'installing what is missing'
third_party/install.sh

say 'building'
tools/build_binaries.sh
bazel build --show_result=0 //examples/digits:trainer //examples/digits:single

say "starting $SERVERS servers"
work=$(mktemp -d)
start_fleet "$SERVERS" "$work/first"

say "training with $TRAINERS trainers"
start_trainers
await_version "$CHECKPOINT_VERSION"

say 'writing a checkpoint while training goes on'
made=$(bin/shardctl checkpoint digits --fleet "$fleet" --json)
version=$(version_in "$made")
bin/shardctl checkpoints digits --fleet "$fleet"
await_version $((version + LOST_VERSIONS))

say "killing all $SERVERS servers with SIGKILL"
kill_servers "$work/first"
await_trainers 3
durable=$(sed -n 's/.*; last durable version \([0-9]*\); .*/\1/p' "$work/trainer-1.log")
if [[ -z $durable ]] || ((durable < version)); then
  fail "a trainer says that version '$durable' is durable; version $version is"
fi

say "starting $SERVERS_LATER servers and restoring"
start_fleet "$SERVERS_LATER" "$work/second"
bin/shardctl restore digits --fleet "$fleet"

say 'training on from there'
start_trainers
await_trainers 0
bin/shardctl optimizers --fleet "$fleet"

say 'comparing with one process that nothing interrupted'
bin/shardctl state-dict digits --fleet "$fleet" --out "$work/digits.safetensors"
result=$(bazel-bin/examples/digits/single --compare "$work/digits.safetensors")
accuracy=${result#*accuracy=}
if ! awk "BEGIN { exit !(${accuracy%% *} >= $LEAST_ACCURACY) }"; then
  step="checking that the accuracy is at least $LEAST_ACCURACY ($result)"
  exit 1
fi
