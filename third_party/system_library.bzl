"""system_library: an installed Debian library as a Bazel repository with upstream's target names.

The repository keeps the name and the targets that upstream's own Bazel build has, so that a later
switch to source builds touches no BUILD file. Headers stay in /usr/include, which the compiler
searches anyway; a target carries only what pkg-config says: linker options and defines.
"""

_LOAD = """load("@rules_cc//cc:defs.bzl", "cc_library")
"""

def _pkg_config(repository_ctx, package, module, arguments):
    tool = repository_ctx.which("pkg-config")
    if not tool:
        fail("pkg-config is not installed: run third_party/install.sh (Debian package pkg-config)")
    result = repository_ctx.execute([tool, module] + arguments)
    if result.return_code != 0:
        fail("@%s needs %s %s: run third_party/install.sh (Debian package %s)\n%s" % (
            repository_ctx.name,
            module,
            repository_ctx.attr.minimum_version,
            package,
            result.stderr,
        ))
    return result.stdout.strip()

def _unique(values):
    return {value: None for value in values}.keys()

def _cc_library(repository_ctx, target, module):
    attr = repository_ctx.attr
    _pkg_config(repository_ctx, attr.debian_package, module, [
        "--atleast-version=" + attr.minimum_version,
        "--print-errors",
    ])
    flags = _pkg_config(repository_ctx, attr.debian_package, module, ["--cflags-only-other", "--libs"])
    defines = []
    linkopts = []
    for flag in flags.split(" "):
        if flag.startswith("-D"):
            defines.append(flag[len("-D"):])
        elif flag.startswith("-l"):
            linkopts.append(flag)
    return """cc_library(
    name = {name},
    defines = {defines},
    linkopts = {linkopts},
    visibility = ["//visibility:public"],
)
""".format(
        name = repr(target),
        defines = repr(_unique(defines)),
        linkopts = repr(_unique(linkopts + attr.extra_linkopts.get(target, []))),
    )

def _system_library_impl(repository_ctx):
    attr = repository_ctx.attr
    for path, target in attr.links.items():
        if not repository_ctx.path(target).exists:
            fail("@%s needs %s: run third_party/install.sh (Debian package %s)" % (
                repository_ctx.name,
                target,
                attr.debian_package,
            ))
        repository_ctx.symlink(target, path)
    packages = {"": []}
    if attr.build_file:
        packages[""].append(repository_ctx.read(attr.build_file))
    for label, module in attr.modules.items():
        package, target = label.split(":")
        packages.setdefault(package, []).append(_cc_library(repository_ctx, target, module))
    for package, targets in packages.items():
        build_file = package + "/BUILD" if package else "BUILD"
        repository_ctx.file(build_file, "\n".join([_LOAD] + targets))

system_library = repository_rule(
    implementation = _system_library_impl,
    attrs = {
        "build_file": attr.label(doc = "Further targets of the repository's root package."),
        "debian_package": attr.string(mandatory = True, doc = "What to install if it is missing."),
        "extra_linkopts": attr.string_list_dict(
            doc = "Target name to libraries that pkg-config does not know.",
        ),
        "links": attr.string_dict(doc = "Path in the repository to the installed file or folder."),
        "minimum_version": attr.string(mandatory = True, doc = "Of every module."),
        "modules": attr.string_dict(doc = "'package:target' to the pkg-config module behind it."),
    },
    configure = True,
    environ = [
        "PATH",
        "PKG_CONFIG_PATH",
    ],
    local = True,
    doc = "See the top of this file.",
)
