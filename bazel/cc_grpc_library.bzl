"""cc_grpc_library: a proto_library in C++: its messages alone, and with services and mocks."""

load("@rules_cc//cc:defs.bzl", "cc_library")
load("@rules_proto//proto:defs.bzl", "ProtoInfo")

# What is generated per .proto, by output group.
_GROUPS = {
    "message_headers": [".pb.h"],
    "message_sources": [".pb.cc"],
    "service_headers": [".grpc.pb.h", "_mock.grpc.pb.h"],
    "service_sources": [".grpc.pb.cc"],
}

def _generate_cc_impl(ctx):
    info = ctx.attr.proto[ProtoInfo]
    names = [source.path[len(info.proto_source_root) + 1:] for source in info.direct_sources]

    # Where protoc writes a file named `name`, seen from this package.
    root = ctx.attr.strip_import_prefix
    package = ctx.label.package
    if package != root and not package.startswith(root + "/"):
        fail("package '%s' is not below strip_import_prefix '%s'" % (package, root))
    inner = package[len(root) + 1:]
    groups = {group: [] for group in _GROUPS}
    for name in names:
        if inner and not name.startswith(inner + "/"):
            fail("'%s' is not below '%s'" % (name, inner))
        stem = (name[len(inner) + 1:] if inner else name)[:-len(".proto")]
        for group, suffixes in _GROUPS.items():
            groups[group] += [ctx.actions.declare_file(stem + suffix) for suffix in suffixes]
    outputs = [file for files in groups.values() for file in files]

    out = "%s/%s" % (ctx.bin_dir.path, root)
    arguments = ctx.actions.args()
    arguments.add("--cpp_out=" + out)
    arguments.add("--grpc_out=generate_mock_code=true:" + out)
    arguments.add(ctx.executable._plugin, format = "--plugin=protoc-gen-grpc=%s")
    arguments.add_all(info.transitive_proto_path, format_each = "-I%s")
    arguments.add_all(names)
    ctx.actions.run(
        executable = ctx.executable._protoc,
        arguments = [arguments],
        inputs = info.transitive_sources,
        outputs = outputs,
        tools = [ctx.executable._plugin],
        mnemonic = "GenerateGrpcCc",
        progress_message = "Generating C++ from %{label}",
    )
    return [
        DefaultInfo(files = depset(outputs)),
        OutputGroupInfo(**{group: depset(files) for group, files in groups.items()}),
    ]

_generate_cc = rule(
    implementation = _generate_cc_impl,
    attrs = {
        "proto": attr.label(
            mandatory = True,
            providers = [ProtoInfo],
        ),
        "strip_import_prefix": attr.string(mandatory = True),
        "_plugin": attr.label(
            allow_single_file = True,
            cfg = "exec",
            default = "@com_github_grpc_grpc//:grpc_cpp_plugin",
            executable = True,
        ),
        "_protoc": attr.label(
            allow_single_file = True,
            cfg = "exec",
            default = "@com_google_protobuf//:protoc",
            executable = True,
        ),
    },
)

def cc_grpc_library(name, proto, messages, strip_import_prefix = "/proto", deps = [], **kwargs):
    """Two cc_libraries of what protoc and gRPC's plugin make from one proto_library.

    Headers are included by the path by which the .proto is imported.

    Args:
      name: of the library with everything: x.pb.h, x.grpc.pb.h and x_mock.grpc.pb.h (a gMock stub).
      proto: the proto_library, whose strip_import_prefix is the same.
      messages: name of the library with x.pb.h alone, for code that knows no gRPC.
      strip_import_prefix: the folder, absolute in the workspace, at or above this package that
        import paths start from.
      deps: the `messages` library of each proto_library that `proto` depends on. The well-known
        types need none.
      **kwargs: passed to both cc_libraries.
    """
    generated = name + "_generated"
    _generate_cc(
        name = generated,
        proto = proto,
        strip_import_prefix = strip_import_prefix.lstrip("/"),
        visibility = ["//visibility:private"],
    )
    for group in _GROUPS:
        native.filegroup(
            name = "%s_%s" % (generated, group),
            srcs = [generated],
            output_group = group,
            visibility = ["//visibility:private"],
        )
    cc_library(
        name = messages,
        srcs = [generated + "_message_sources"],
        hdrs = [generated + "_message_headers"],
        strip_include_prefix = strip_import_prefix,
        deps = deps + ["@com_google_protobuf//:protobuf"],
        **kwargs
    )
    cc_library(
        name = name,
        srcs = [generated + "_service_sources"],
        hdrs = [generated + "_service_headers"],
        strip_include_prefix = strip_import_prefix,
        deps = deps + [
            ":" + messages,
            "@com_github_grpc_grpc//:grpc++",
        ],
        **kwargs
    )
