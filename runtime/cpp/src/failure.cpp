#include "failure.h"

#include <cstdarg>
#include <cstdio>

namespace dpmrt_core {

Failure::Failure(dpmrt_status status, const std::string &what, const std::string &got, const std::string &expected,
                 const std::string &fix)
    : status_(status), text_(what) {
    add("got:      ", got);
    add("expected: ", expected);
    add("fix:      ", fix);
}

Failure::~Failure() = default;

void Failure::add(const char *label, const std::string &value) {
    if (!value.empty()) text_ += std::string("\n  ") + label + value;
}

std::string format(const char *pattern, ...) {
    va_list arguments, again;
    va_start(arguments, pattern);
    va_copy(again, arguments);
    const int length = std::vsnprintf(nullptr, 0, pattern, arguments);
    va_end(arguments);
    std::string text(length > 0 ? static_cast<std::size_t>(length) : 0, '\0');
    std::vsnprintf(text.data(), text.size() + 1, pattern, again);
    va_end(again);
    return text;
}

}  // namespace dpmrt_core
