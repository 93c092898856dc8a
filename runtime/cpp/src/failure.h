// What the library throws inside; the C functions turn it into a status and a text.
//
// All that is inside is in a namespace of its own: names of dpmrt.hpp, compiled by whoever links the static library, would
// otherwise be the same to the linker.
#pragma once

#include <exception>
#include <string>
#include <string_view>

#include "dpmrt/dpmrt.h"

namespace dpmrt_core {

// The four parts of an error, as in Python: what is wrong, what arrived, what was expected, and what to do.
class Failure : public std::exception {
public:
    Failure(dpmrt_status status, std::string_view what, std::string_view got = {}, std::string_view expected = {},
            std::string_view fix = {});
    ~Failure() override;
    Failure(const Failure &) = default;
    Failure &operator=(const Failure &) = default;

    dpmrt_status status() const noexcept { return status_; }
    const char *what() const noexcept override { return text_.c_str(); }

private:
    void add(const char *label, std::string_view value);

    dpmrt_status status_;
    std::string text_;
};

// Throws a Failure.
[[noreturn]] void fail(dpmrt_status status, std::string_view what, std::string_view got = {},
                       std::string_view expected = {}, std::string_view fix = {});

// printf into a string.
#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
std::string
format(const char *pattern, ...);

}  // namespace dpmrt_core
