#!/usr/bin/env bash
# The interchange with Python: checkpoints that PyTorch loads, state dicts that it wrote, and the
# examples of docs/checkpoints.md, compared bit for bit. By hand, not in test.sh: it needs PyTorch
# for Python, 5 GB on disk, which it installs into a folder of the user's cache and nowhere else.
#
# Environment:
#   SHARDSTEP_INTEROP_VENV   a virtual environment with torch 2.11.0, safetensors and numpy: none is
#                            made
#
# The last line is "interop: ok N checks".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly TORCH_VERSION=2.11.0
venv=${SHARDSTEP_INTEROP_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/shardstep/interop-$TORCH_VERSION}

has_packages() {
  [[ -x $venv/bin/python ]] && "$venv/bin/python" -c "import numpy, safetensors, torch
assert torch.__version__.split('+')[0] == '$TORCH_VERSION', torch.__version__" 2>/dev/null
}

if ! has_packages; then
  if [[ -n ${SHARDSTEP_INTEROP_VENV:-} ]]; then
    echo "interop: SHARDSTEP_INTEROP_VENV is '$venv': no torch $TORCH_VERSION, safetensors and numpy" >&2
    exit 1
  fi
  echo "interop: installing torch $TORCH_VERSION, safetensors and numpy into $venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet "torch==$TORCH_VERSION" safetensors numpy
fi

tools/build_binaries.sh
bazel build --show_result=0 //tests/interop:trainer
"$venv/bin/python" tests/interop/interop.py bin/shardctl \
  bazel-bin/tests/interop/trainer docs/checkpoints.md
