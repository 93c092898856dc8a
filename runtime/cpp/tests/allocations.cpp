// Counts allocations: a session's come from the caller, and a run makes none.
#include <cstddef>
#include <cstdlib>
#include <new>

#include "cases.h"
#include "network.h"

namespace {

std::size_t made = 0;
std::size_t given = 0;
std::size_t held = 0;

void *count(std::size_t bytes, std::size_t alignment) {
    ++made;
    const std::size_t whole = (bytes + alignment - 1) / alignment * alignment;
    void *memory = std::aligned_alloc(alignment, whole == 0 ? alignment : whole);
    if (memory == nullptr) std::abort();
    return memory;
}

void *allocate(void *, std::size_t bytes, std::size_t alignment) {
    ++given;
    held += bytes;
    const std::size_t whole = (bytes + alignment - 1) / alignment * alignment;
    return std::aligned_alloc(alignment, whole);
}

void release(void *, void *memory, std::size_t bytes) {
    held -= bytes;
    std::free(memory);
}

void *refuse(void *, std::size_t, std::size_t) { return nullptr; }

void check(const Case &one, bool guided) {
    const dpmrt_engine engine = network::engine();
    dpmrt_error error;
    dpmrt_plan *plan = plan_of(one);
    dpmrt_session *session = nullptr;
    dpmrt_session_params params = one.params();
    params.guided = params.guided_alone = guided ? 1 : 0;
    params.allocator = {nullptr, refuse, release};
    REQUIRE(dpmrt_session_create(plan, &engine, &params, &session, &error) == DPMRT_ERROR_MEMORY);
    REQUIRE(session == nullptr);
    params.allocator = {nullptr, allocate, release};
    require_ok(dpmrt_session_create(plan, &engine, &params, &session, &error), error);
    REQUIRE(given > 0 && held > 0);
    dpmrt_plan_free(plan);
    dpmrt_run_params run = dpmrt_run_default_params();
    if (guided) {
        run.guidance.scale = 2;
        run.guidance.high = 0.5;
        run.guidance.rescale = 0.7;
    }
    std::vector<std::uint8_t> out(one.typed(one.x_T).size());
    const std::size_t before = made;
    const std::size_t before_given = given;
    require_ok(dpmrt_session_run(session, &run, out.data(), &error), error);
    require_ok(dpmrt_session_run(session, &run, out.data(), &error), error);
    REQUIRE(made == before);
    REQUIRE(given == before_given);
    dpmrt_session_free(session);
    REQUIRE(held == 0);
}

}  // namespace

// Declared by the compiler itself only where it calls them.
void operator delete(void *memory, std::size_t) noexcept;
void operator delete(void *memory, std::size_t, std::align_val_t) noexcept;

void *operator new(std::size_t bytes) { return count(bytes, alignof(std::max_align_t)); }
void *operator new(std::size_t bytes, std::align_val_t alignment) { return count(bytes, static_cast<std::size_t>(alignment)); }
void *operator new(std::size_t bytes, std::align_val_t alignment, const std::nothrow_t &) noexcept {
    return count(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void *memory) noexcept { std::free(memory); }
void operator delete(void *memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void *memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void *memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void *memory, std::align_val_t, const std::nothrow_t &) noexcept { std::free(memory); }

int main(int argc, char **argv) {
    REQUIRE(argc == 2);
    for (const Case &one : read_cases(argv[1])) {
        check(one, false);
        check(one, true);
    }
    return 0;
}
