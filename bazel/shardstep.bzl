"""The project's own C++ rules: one header spelling, one set of warnings, one test main.

A header x.h of package a/b is included as "shardstep/a/b/x.h" and no other way. Only `hdrs` get that
spelling: a private header stands in the `hdrs` of a library with private visibility.
"""

load("@rules_cc//cc:defs.bzl", "cc_binary", "cc_library", "cc_test")

_WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Werror",
]

# Of a test's own sources: the compiler's time is what they cost. What they test is built as it is
# shipped.
_TEST_COPTS = ["-O1"]

_TEST_MAIN = ["@com_google_googletest//:gtest_main"]

# Read by the sanitizer configurations of .bazelrc.
_SUPPRESSIONS = ["//tools/sanitizers:suppressions"]

def shardstep_cc_library(name, hdrs = [], copts = [], **kwargs):
    """cc_library whose headers are spelt shardstep/<package>/<file>."""
    if hdrs:
        kwargs["strip_include_prefix"] = "/" + native.package_name()
        kwargs["include_prefix"] = "shardstep/" + native.package_name()
    cc_library(
        name = name,
        hdrs = hdrs,
        copts = _WARNINGS + copts,
        **kwargs
    )

def shardstep_cc_binary(name, copts = [], data = [], **kwargs):
    """cc_binary with the project's warnings."""
    cc_binary(
        name = name,
        copts = _WARNINGS + copts,
        data = _SUPPRESSIONS + data,
        **kwargs
    )

def shardstep_cc_test(name, copts = [], data = [], deps = [], size = "small", **kwargs):
    """cc_test linked with GoogleTest, GoogleMock and their main."""
    cc_test(
        name = name,
        size = size,
        copts = _WARNINGS + _TEST_COPTS + copts,
        data = _SUPPRESSIONS + data,
        deps = deps + _TEST_MAIN,
        **kwargs
    )
