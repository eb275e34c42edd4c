#include "shardstep/server/push.h"

#include <cstddef>

namespace shardstep {

bool Touched(const std::string& bitmap, int parameter) {
  const size_t byte = parameter / 8;
  return byte < bitmap.size() && ((bitmap[byte] >> (parameter % 8)) & 1) != 0;
}

}  // namespace shardstep
