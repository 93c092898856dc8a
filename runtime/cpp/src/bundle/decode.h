// From the bytes of `dpmrt.json` to its fields; what does not follow the schema is refused in the words of Python's reader.
#pragma once

#include <string_view>

#include "schema.h"

namespace dpmrt_core {

Manifest decode_manifest(std::string_view raw);

}  // namespace dpmrt_core
