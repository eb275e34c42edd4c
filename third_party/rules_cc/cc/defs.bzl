"""Bazel's built-in C++ rules under the names of @rules_cc.

Debian's bazel-rules-cc needs Bazel 5 or later and does not load under Debian's Bazel 4.2.3. Bazel's
own @bazel_tools loads all of these names.
"""

cc_binary = native.cc_binary
cc_import = native.cc_import
cc_library = native.cc_library
cc_proto_library = native.cc_proto_library
cc_test = native.cc_test
cc_toolchain = native.cc_toolchain
cc_toolchain_suite = native.cc_toolchain_suite
objc_library = native.objc_library
