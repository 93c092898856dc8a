// How adapters fail. They see the C functions of the library alone, as any program does that links the shared one.
#pragma once

#include <cstddef>
#include <cstring>
#include <new>
#include <string>

#include "dpmrt/dpmrt.h"

namespace dpmrt_adapter {

struct Refusal {
    dpmrt_status status;
    std::string text;
};

[[noreturn]] inline void refuse(dpmrt_status status, std::string what, const std::string &got,
                                const std::string &expected = {}, const std::string &fix = {}) {
    const auto add = [&what](const char *label, const std::string &value) {
        if (!value.empty()) what += label + value;
    };
    add("\n  got:      ", got);
    add("\n  expected: ", expected);
    add("\n  fix:      ", fix);
    throw Refusal{status, what};
}

// Goes on only if a function of the library succeeded.
inline void check(dpmrt_status status, const dpmrt_error &error) {
    if (status != DPMRT_OK) throw Refusal{status, error.text};
}

inline void needed(const void *pointer, const char *name) {
    if (pointer == nullptr) refuse(DPMRT_ERROR_ARGUMENT, std::string(name) + " is missing", "NULL", "a pointer");
}

template <class Work>
dpmrt_status guarded(dpmrt_error *error, Work work) noexcept {
    const auto report = [error](dpmrt_status status, const char *text) {
        if (error != nullptr) {
            std::strncpy(error->text, text, sizeof error->text - 1);
            error->text[sizeof error->text - 1] = '\0';
        }
        return status;
    };
    try {
        work();
        return report(DPMRT_OK, "");
    } catch (const Refusal &refusal) {
        return report(refusal.status, refusal.text.c_str());
    } catch (const std::bad_alloc &) {
        return report(DPMRT_ERROR_MEMORY, "out of memory");
    } catch (const std::exception &failure) {
        return report(DPMRT_ERROR_INTERNAL, failure.what());
    } catch (...) {
        return report(DPMRT_ERROR_INTERNAL, "an exception of an unknown kind");
    }
}

}  // namespace dpmrt_adapter
