// What the library throws inside; the C functions turn it into a status and a text.
//
// All that is inside is in a namespace of its own: names of dpmrt.hpp, compiled by whoever links the static library, would
// otherwise be the same to the linker.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <exception>
#include <string>

#include "dpmrt/dpmrt.h"

namespace dpmrt_core {

// The four parts of an error, as in Python: what is wrong, what arrived, what was expected, and what to do.
class Failure : public std::exception {
public:
    Failure(dpmrt_status status, const std::string &what, const std::string &got = {}, const std::string &expected = {},
            const std::string &fix = {})
        : status_(status), text_(what) {
        add("got:      ", got);
        add("expected: ", expected);
        add("fix:      ", fix);
    }

    dpmrt_status status() const noexcept { return status_; }
    const char *what() const noexcept override { return text_.c_str(); }

private:
    void add(const char *label, const std::string &value) {
        if (!value.empty()) text_ += std::string("\n  ") + label + value;
    }

    dpmrt_status status_;
    std::string text_;
};

// printf into a string.
#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
inline std::string
format(const char *pattern, ...) {
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
