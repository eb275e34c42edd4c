#!/usr/bin/env bash
# Installs what is missing, builds, and trains a network on handwritten digits: three servers, two
# trainers, and one process without a fleet that must come to the same parameters, bit for bit.
#
# The last line is "quickstart: ok accuracy=0.97 identical=yes version=... servers=3", or
# "quickstart: failed ..." and exit code 1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly SERVERS=3
readonly LEAST_ACCURACY=0.95

step='installing'
work=
trainers=()

# Ends what this script started, however it ends itself.
finish() {
  local status=$?
  trap '' INT TERM
  if ((${#trainers[@]} > 0)); then
    kill "${trainers[@]}" 2>/dev/null || true
    wait "${trainers[@]}" 2>/dev/null || true
  fi
  if [[ -n $work ]]; then
    # Succeeds without a word where no server of ours runs.
    [[ ! -e $work/fleet.json ]] ||
      bin/shardctl fleet down --fleet "$work/fleet.json" >/dev/null || status=1
    ((status == 0)) || tail -n 20 "$work"/trainer-*.log 2>/dev/null || true
    rm -rf "$work"
  fi
  if ((status == 0)); then
    echo "quickstart: ok $result servers=$SERVERS"
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

# For the background: becomes the trainer, so that $! is the trainer and not a shell around it.
train() {
  exec bazel-bin/examples/digits/trainer --fleet "$work/fleet.json" --trainers 2 --trainer-rank "$1" \
    --out "$work/trainer-$1.safetensors"
}

say 'installing what is missing'
third_party/install.sh

say 'building'
tools/build_binaries.sh
bazel build --show_result=0 //examples/digits:trainer //examples/digits:single

say "starting $SERVERS servers"
work=$(mktemp -d)
bin/shardctl fleet up --servers "$SERVERS" --dir "$work" --name quickstart --detach

say 'training with 2 trainers'
train 1 2>"$work/trainer-1.log" &
trainers+=($!)
train 0 &
trainers+=($!)
# Whichever ends first: without the other one a trainer would only wait.
wait -n
wait -n
trainers=()
bin/shardctl optimizers --fleet "$work/fleet.json"

say 'comparing with one process'
result=$(bazel-bin/examples/digits/single --compare "$work/trainer-0.safetensors" \
  --compare "$work/trainer-1.safetensors")
accuracy=${result#*accuracy=}
if ! awk "BEGIN { exit !(${accuracy%% *} >= $LEAST_ACCURACY) }"; then
  step="checking that the accuracy is at least $LEAST_ACCURACY ($result)"
  exit 1
fi
