// What stands between the C functions and the inside: pointers checked, exceptions turned into a status and a text.
#pragma once

#include "dpmrt/dpmrt.h"

namespace dpmrt_core {

// The status and the text of the exception that is being handled.
dpmrt_status caught(dpmrt_error *error) noexcept;

template <class Work>
dpmrt_status guarded(dpmrt_error *error, Work work) noexcept {
    try {
        work();
    } catch (...) {
        return caught(error);
    }
    if (error != nullptr) error->text[0] = '\0';
    return DPMRT_OK;
}

// Refuses NULL.
void needed(const void *pointer, const char *name);

}  // namespace dpmrt_core
