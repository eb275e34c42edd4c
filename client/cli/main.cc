#include <iostream>
#include <string>
#include <vector>

#include "shardstep/client/cli/shardctl.h"

int main(int argc, char** argv) {
  return shardstep::RunShardctl(std::vector<std::string>(argv + 1, argv + argc), std::cout,
                                std::cerr);
}
