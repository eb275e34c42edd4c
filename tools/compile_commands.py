#!/usr/bin/env python3
"""Writes compile_commands.json, for clang-tidy and editors, from the actions that Bazel would run.

Usage: tools/compile_commands.py [BAZEL_OPTION...]

Give the options of a build that was done (tools/check.sh: --config=clang): generated headers and
the links that give headers their spelling exist only afterwards.
"""

import json
import pathlib
import subprocess
import sys


def bazel(*arguments: str) -> str:
    return subprocess.run(["bazel", *arguments], check=True, text=True, stdout=subprocess.PIPE).stdout


def main() -> None:
    options = sys.argv[1:]
    workspace = pathlib.Path(bazel("info", "workspace").strip())
    execution_root = bazel("info", *options, "execution_root").strip()
    query = 'mnemonic("CppCompile", //...)'
    graph = json.loads(bazel("aquery", *options, "--output=jsonproto", query))
    commands = {}
    for action in graph.get("actions", []):
        arguments = action["arguments"]
        source = arguments[arguments.index("-c") + 1]
        # Each source is compiled with and without -fPIC: one is enough. Generated ones are not ours.
        if source in commands or not (workspace / source).exists() or source.startswith("bazel-out/"):
            continue
        commands[source] = {
            "directory": execution_root,
            # Absolute: clang-tidy looks for .clang-tidy from here upwards.
            "file": str(workspace / source),
            "arguments": [str(workspace / source) if a == source else a for a in arguments],
        }
    target = workspace / "compile_commands.json"
    target.write_text(json.dumps(list(commands.values()), indent=1) + "\n")
    print(f"{target}: {len(commands)} sources")


if __name__ == "__main__":
    main()
