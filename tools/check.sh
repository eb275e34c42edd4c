#!/usr/bin/env bash
# Format and lint: clang-format, shellcheck, a build with Clang's warnings and lock analysis, and
# clang-tidy. Changes nothing. Needs third_party/install.sh --dev.
#
#   tools/check.sh              everything
#   tools/check.sh sharding/    clang-tidy only where the path contains an argument
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

third_party/install.sh --dev

# Files of the working tree that git does not ignore and that match the patterns.
files() { git ls-files -z --cached --others --exclude-standard -- "$@"; }

echo "check: clang-format"
files '*.h' '*.cc' '*.proto' | xargs -0 -r clang-format-14 --dry-run -Werror

echo "check: shellcheck"
files '*.sh' .ci/run | xargs -0 -r shellcheck

echo "check: clang"
bazel build --config=clang --show_result=0 //...

echo "check: clang-tidy"
tools/compile_commands.py --config=clang
# Headers are seen under bazel-out/.../_virtual_includes/<target>/shardstep/.
tidy=(clang-tidy-14 --quiet -p . --header-filter='/_virtual_includes/.*/shardstep/')

planted=tools/planted_fault/planted_fault
found=$("${tidy[@]}" "$planted.cc" 2>/dev/null | grep 'modernize-use-nullptr' || true)
for file in planted_fault.h planted_fault.cc; do
  if ! grep -qF "/$file:" <<<"$found"; then
    echo "check: clang-tidy did not find the fault in $planted.*: '$file' is not checked" >&2
    exit 1
  fi
done

python3 - "$@" <<'PYTHON' | xargs -0 -r -P "$(nproc)" -n 1 "${tidy[@]}"
import json, sys
for command in json.load(open("compile_commands.json")):
    path = command["file"]
    if "/planted_fault/" not in path and any(part in path for part in sys.argv[1:] or [""]):
        print(path, end="\0")
PYTHON
echo "check: ok"
