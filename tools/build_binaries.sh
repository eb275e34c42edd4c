#!/usr/bin/env bash
# Builds the product's two binaries and leaves links to them in bin/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bazel build --show_result=0 //client/cli:shardctl //server:shardstep-server
mkdir -p bin
ln -sfn -t bin ../bazel-bin/client/cli/shardctl ../bazel-bin/server/shardstep-server
