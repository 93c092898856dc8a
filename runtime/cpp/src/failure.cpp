#include "failure.h"

#include <cstdarg>
#include <cstdio>

namespace dpmrt_core {

Failure::Failure(dpmrt_status status, std::string_view what, std::string_view got, std::string_view expected,
                 std::string_view fix)
    : status_(status), text_(what) {
    add("got:      ", got);
    add("expected: ", expected);
    add("fix:      ", fix);
}

Failure::~Failure() = default;

void Failure::add(const char *label, std::string_view value) {
    if (!value.empty()) text_.append("\n  ").append(label).append(value);
}

void fail(dpmrt_status status, std::string_view what, std::string_view got, std::string_view expected,
          std::string_view fix) {
    throw Failure(status, what, got, expected, fix);
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
