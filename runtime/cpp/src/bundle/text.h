// Values as errors show them, in the way of Python's messages.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace dpmrt_core {

// A text in quotes, with what cannot be printed escaped.
std::string quoted(const std::string &text);

// A number by its shortest digits that read back the same, as 1.0 or 1e-05.
std::string shown(double value);

std::string decimal(std::int64_t value);

// Each text once, in order.
std::vector<std::string> sorted(std::vector<std::string> texts);

// Texts with commas between, or "none".
std::string listed(const std::vector<std::string> &texts, const char *between = ", ");

}  // namespace dpmrt_core
