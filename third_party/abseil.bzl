"""The targets of @com_google_absl that Debian's Abseil offers and this project may use."""

_TARGETS = {
    "absl/algorithm": ["container"],
    "absl/base": ["core_headers"],
    "absl/cleanup": ["cleanup"],
    "absl/container": [
        "btree",
        "fixed_array",
        "flat_hash_map",
        "flat_hash_set",
        "inlined_vector",
        "node_hash_map",
    ],
    "absl/functional": [
        "any_invocable",
        "bind_front",
        "function_ref",
    ],
    "absl/hash": ["hash"],
    "absl/memory": ["memory"],
    "absl/meta": ["type_traits"],
    "absl/numeric": [
        "bits",
        "int128",
    ],
    "absl/random": ["random"],
    "absl/status": [
        "status",
        "statusor",
    ],
    "absl/strings": [
        "cord",
        "str_format",
        "strings",
    ],
    # For its search for lock cycles alone; the project's own mutex is sharding/mutex.h.
    "absl/synchronization": ["synchronization"],
    "absl/time": ["time"],
    "absl/types": [
        "optional",
        "span",
        "variant",
    ],
    "absl/utility": ["utility"],
}

# Modules whose name is not absl_<target>.
_MODULES = {
    "absl/algorithm:container": "absl_algorithm_container",
    "absl/random:random": "absl_random_random",
}

def abseil_modules():
    """Returns the pkg-config module of each target, for system_library."""
    modules = {}
    for package, targets in _TARGETS.items():
        for target in targets:
            label = package + ":" + target
            modules[label] = _MODULES.get(label, "absl_" + target)
    return modules
