// Feeds the reader of step files, and the executor with what it accepts. With Clang this is a libFuzzer target; with
// others replay.cpp calls it for the files of a corpus.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "dpmrt/dpmrt.h"
#include "sha256.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size);

namespace {

constexpr std::size_t kHead = 16, kCheck = 32;
// Plans that are larger are read, and not run: an execution should take milliseconds.
constexpr std::size_t kMostRows = 64, kMostSlots = 32;

dpmrt_status network(void *, void *bound, std::size_t call, double, std::size_t output, dpmrt_error *) {
    const auto *binding = static_cast<const dpmrt_binding *>(bound);
    std::size_t count = static_cast<std::size_t>(binding->parts);
    for (std::size_t k = 0; k < binding->rank; ++k) count *= binding->shape[k];
    auto *out = static_cast<float *>(binding->outputs[output]);
    for (std::size_t k = 0; k < count; ++k) out[k] = static_cast<float>(k % 7) - static_cast<float>(call % 3);
    return DPMRT_OK;
}

// What cannot be, whatever the bytes are, ends the program.
void require(bool condition) {
    if (!condition) std::abort();
}

void run(const dpmrt_plan *plan) {
    dpmrt_error error;
    dpmrt_plan_info info;
    require(dpmrt_plan_describe(plan, &info, &error) == DPMRT_OK && info.calls <= info.rows && info.draws <= info.rows);
    std::vector<double> times(info.calls);
    require(dpmrt_plan_times(plan, times.data(), times.size(), &error) == DPMRT_OK);
    if (info.rows > kMostRows || info.slots > kMostSlots) return;
    const dpmrt_engine engine{nullptr, nullptr, network, nullptr};
    dpmrt_session_params params = dpmrt_session_default_params();
    params.rank = 3;
    params.shape[0] = 2;
    params.shape[1] = 1;
    params.shape[2] = 5;
    dpmrt_session *session = nullptr;
    require(dpmrt_session_create(plan, &engine, &params, &session, &error) == DPMRT_OK);
    const dpmrt_run_params asked = dpmrt_run_default_params();
    std::vector<float> out(10);
    for (int again = 0; again < 2; ++again) {
        const dpmrt_status status = dpmrt_session_run(session, &asked, out.data(), &error);
        require(status == DPMRT_OK || status == DPMRT_ERROR_NONFINITE);
    }
    dpmrt_session_free(session);
}

void read(const std::uint8_t *data, std::size_t size) {
    dpmrt_plan *plan = nullptr;
    dpmrt_error error;
    const dpmrt_status status = dpmrt_plan_read(data, size, &plan, &error);
    require((status == DPMRT_OK) == (plan != nullptr));
    require(std::memchr(error.text, '\0', sizeof error.text) != nullptr);
    if (plan != nullptr) {
        run(plan);
    } else {
        require(status == DPMRT_ERROR_FORMAT || status == DPMRT_ERROR_VERSION);
        require(error.text[0] != '\0');
    }
    dpmrt_plan_free(plan);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
    const std::uint8_t none = 0;
    read(size > 0 ? data : &none, size);
    if (size < kHead + kCheck) return 0;
    // Chance makes no checksum, and all that lies behind one would never be reached.
    std::vector<std::uint8_t> signed_data(data, data + size);
    const auto digest = dpmrt_core::Sha256::of(data, size - kCheck);
    std::copy(digest.begin(), digest.end(), signed_data.end() - static_cast<std::ptrdiff_t>(kCheck));
    read(signed_data.data(), signed_data.size());
    return 0;
}
