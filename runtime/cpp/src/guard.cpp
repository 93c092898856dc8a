#include "guard.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "failure.h"

namespace dpmrt_core {
namespace {

dpmrt_status report(dpmrt_error *error, dpmrt_status status, const char *text) {
    if (error != nullptr) {
        const std::size_t length = std::min(std::strlen(text), sizeof error->text - 1);
        std::memcpy(error->text, text, length);
        error->text[length] = '\0';
    }
    return status;
}

}  // namespace

dpmrt_status caught(dpmrt_error *error) noexcept {
    try {
        throw;
    } catch (const Failure &failure) {
        return report(error, failure.status(), failure.what());
    } catch (const std::bad_alloc &) {
        return report(error, DPMRT_ERROR_MEMORY, "out of memory");
    } catch (const std::exception &failure) {
        return report(error, DPMRT_ERROR_INTERNAL, failure.what());
    } catch (...) {
        return report(error, DPMRT_ERROR_INTERNAL, "an exception of an unknown kind, perhaps from a callback");
    }
}

void needed(const void *pointer, const char *name) {
    if (pointer == nullptr) {
        fail(DPMRT_ERROR_ARGUMENT, std::string(name) + " is missing", "NULL", "a pointer");
    }
}

}  // namespace dpmrt_core
