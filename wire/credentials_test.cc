#include "shardstep/wire/credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

TEST(IsLoopbackTest, WhatStaysOnThisMachine) {
  for (const char* address : {"127.0.0.1:7400", "127.0.0.1", "127.8.9.10:0", "[::1]:7400", "[::1]",
                              "::1", "localhost:7400", "localhost"}) {
    EXPECT_TRUE(IsLoopback(address)) << address;
  }
}

TEST(IsLoopbackTest, EverythingElse) {
  for (const char* address : {"0.0.0.0:7400", "[::]:7400", "::", "10.0.0.1:7400", "128.0.0.1:1",
                              "127.0.0.1.example.org:1", "localhost.example.org:1", "ps-0:7400", "",
                              ":7400", "[::2]:1", "::ffff:127.0.0.1"}) {
    EXPECT_FALSE(IsLoopback(address)) << address;
  }
}

TEST(CheckListenAddressTest, RefusesTheNetworkUnlessTold) {
  EXPECT_OK(CheckListenAddress("127.0.0.1:0", false));
  EXPECT_OK(CheckListenAddress("0.0.0.0:7400", true));
  EXPECT_THAT(CheckListenAddress("0.0.0.0:7400", false),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "listen address \"0.0.0.0:7400\": not a loopback address, and connections "
                       "are neither encrypted nor authenticated; listen on 127.0.0.1, or pass "
                       "--insecure if the network is trusted"));
}

}  // namespace
}  // namespace shardstep
