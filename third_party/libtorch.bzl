"""libtorch: the unpacked LibTorch 2.11 as a Bazel repository.

It lies where SHARDSTEP_LIBTORCH says, else in the user's cache folder, where
third_party/install.sh unpacks it.
"""

_VERSION = "2.11.0"

# Other projects' headers in LibTorch's include/, of other versions than Debian's, which they would
# hide from every source that uses both.
_SHADOWING = [
    "fmt",
    "google",
]

def _folder(repository_ctx):
    environ = repository_ctx.os.environ
    chosen = environ.get("SHARDSTEP_LIBTORCH", "")
    if chosen:
        return chosen
    cache = environ.get("XDG_CACHE_HOME", "")
    if not cache:
        cache = environ.get("HOME", "") + "/.cache"
    return cache + "/shardstep/libtorch-" + _VERSION

def _libtorch_impl(repository_ctx):
    folder = _folder(repository_ctx)
    version_header = repository_ctx.path(folder + "/include/torch/headeronly/version.h")
    if not version_header.exists:
        fail(("no LibTorch in '%s': run third_party/install.sh, or let SHARDSTEP_LIBTORCH name " +
              "the folder of LibTorch %s that holds include/ and lib/") % (folder, _VERSION))

    # The literal may go on: "2.11.0+cpu".
    if '"' + _VERSION not in repository_ctx.read(version_header):
        fail("LibTorch in '%s' is not version %s" % (folder, _VERSION))
    for entry in repository_ctx.path(folder + "/include").readdir():
        if entry.basename not in _SHADOWING:
            repository_ctx.symlink(entry, "include/" + entry.basename)
    repository_ctx.symlink(folder + "/lib", "lib")
    repository_ctx.symlink(repository_ctx.attr.build_file, "BUILD")

libtorch = repository_rule(
    implementation = _libtorch_impl,
    attrs = {"build_file": attr.label(default = "//third_party:libtorch.BUILD")},
    configure = True,
    environ = [
        "HOME",
        "SHARDSTEP_LIBTORCH",
        "XDG_CACHE_HOME",
    ],
    local = True,
    doc = "See the top of this file.",
)
