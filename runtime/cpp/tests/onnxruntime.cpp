// Samples two images from a bundle by a plan, in eight threads over one network, and writes what each of them got.
#include <cmath>
#include <thread>

#include "../src/half.h"
#include "cases.h"
#include "dpmrt/onnxruntime.h"

namespace {

constexpr std::size_t kBatch = 2;
constexpr std::size_t kFree = 5;  // a side that graph and axes leave open
constexpr int kThreads = 8;

dpmrt_error error;

[[noreturn]] void refused(dpmrt_status status) {
    std::printf("%s\n%s", dpmrt_status_name(status), error.text);
    std::exit(0);
}

void require(dpmrt_status status) {
    if (status != DPMRT_OK) refused(status);
}

// Every half is what it was after a detour, and what lies between two goes to the nearer, or to the even one.
void check_halves() {
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
        const auto half = static_cast<std::uint16_t>(bits);
        if (!std::isnan(dpmrt_core::from_half(half))) REQUIRE(dpmrt_core::to_half(dpmrt_core::from_half(half)) == half);
        if (!std::isnan(dpmrt_core::from_brain(half))) REQUIRE(dpmrt_core::to_brain(dpmrt_core::from_brain(half)) == half);
    }
    for (std::uint16_t half = 0; half < 0x7BFF; ++half) {
        const float low = dpmrt_core::from_half(half);
        const float high = dpmrt_core::from_half(static_cast<std::uint16_t>(half + 1));
        const float middle = 0.5F * (low + high);
        const auto even = static_cast<std::uint16_t>(half + (half & 1U));
        REQUIRE(dpmrt_core::to_half(middle) == even && dpmrt_core::to_half(-middle) == (even | 0x8000U));
        REQUIRE(dpmrt_core::to_half(std::nextafter(middle, 0.0F)) == half);
        REQUIRE(dpmrt_core::to_half(std::nextafter(middle, 1e9F)) == half + 1);
    }
    REQUIRE(dpmrt_core::to_half(65519.9F) == 0x7BFF && dpmrt_core::to_half(65520.0F) == 0x7C00);
    REQUIRE(std::isnan(dpmrt_core::from_half(dpmrt_core::to_half(std::nanf("")))));
    REQUIRE(dpmrt_core::to_brain(1.00390625F) == 0x3F80 && dpmrt_core::to_brain(1.01171875F) == 0x3F82);
    REQUIRE(std::isnan(dpmrt_core::from_brain(dpmrt_core::to_brain(std::nanf("")))));
}

// Numbers that tell rows and places apart; what guidance moves away from has half of them.
void give(dpmrt_conditions *conditions, const dpmrt_tensor_info &input, bool guided) {
    std::size_t count = 1;
    std::size_t shape[DPMRT_MAX_RANK];
    for (std::size_t k = 0; k < input.rank; ++k) {
        shape[k] = k == 0 ? kBatch : input.shape[k] == 0 ? kFree : static_cast<std::size_t>(input.shape[k]);
        count *= shape[k];
    }
    std::vector<float> values(count), opposed(count);
    std::vector<std::int64_t> whole(count);
    for (std::size_t k = 0; k < count; ++k) {
        values[k] = 0.25F * static_cast<float>(k % 7) - 0.5F;
        opposed[k] = 0.5F * values[k];
        whole[k] = static_cast<std::int64_t>(k % 3);
    }
    const std::string role = input.role;
    if (role == "class_labels") {
        require(dpmrt_conditions_labels(conditions, whole.data(), kBatch, &error));
        return;
    }
    if (role == "guidance_scale") std::fill(values.begin(), values.end(), 3.0F);
    const bool real = input.type != DPMRT_TENSOR_INT64 && input.type != DPMRT_TENSOR_INT32;
    const auto type = real ? DPMRT_TENSOR_FLOAT32 : DPMRT_TENSOR_INT64;
    const bool folded = role.rfind("negative_", 0) == 0;
    const void *data = folded ? opposed.data() : real ? static_cast<const void *>(values.data()) : whole.data();
    require(dpmrt_conditions_set(conditions, input.role, data, type, shape, input.rank, &error));
    if (guided && real) {
        require(dpmrt_conditions_negative(conditions, input.role, opposed.data(), type, shape, input.rank, &error));
    }
}

}  // namespace

int main(int argc, char **argv) {
    check_halves();
    REQUIRE(argc == 7);
    dpmrt_bundle *bundle = nullptr;
    require(dpmrt_bundle_open(argv[1], &bundle, &error));
    dpmrt_plan *plan = nullptr;
    require(dpmrt_plan_load(argv[2], &plan, &error));
    dpmrt_run_params run = dpmrt_run_default_params();
    run.seed = 3;
    run.guidance.scale = std::atof(argv[5]);
    const bool guided = run.guidance.scale != 1;
    // "conditioned", "bare", or the folder of another bundle, whose conditions are given instead
    const std::string kind = argv[6];
    const bool conditioned = kind != "bare";

    dpmrt_onnxruntime_params params = dpmrt_onnxruntime_default_params();
    dpmrt_onnxruntime *network = nullptr;
    params.threads = -1;
    REQUIRE(dpmrt_onnxruntime_open(bundle, &params, &network, &error) == DPMRT_ERROR_ARGUMENT);
    REQUIRE(dpmrt_onnxruntime_open(nullptr, &params, &network, &error) == DPMRT_ERROR_ARGUMENT);
    REQUIRE(dpmrt_onnxruntime_open(bundle, nullptr, &network, nullptr) == DPMRT_ERROR_ARGUMENT && network == nullptr);
    dpmrt_onnxruntime_free(nullptr);
    params.threads = 1;
    require(dpmrt_onnxruntime_open(bundle, &params, &network, &error));

    dpmrt_conditions *conditions = nullptr;
    if (conditioned && kind != "conditioned") {
        dpmrt_bundle_free(bundle);
        require(dpmrt_bundle_open(argv[6], &bundle, &error));
    }
    dpmrt_network_info info;
    require(dpmrt_bundle_network(bundle, DPMRT_NETWORK_UNET, &info, &error));
    if (conditioned) require(dpmrt_conditions_create(bundle, kBatch, &conditions, &error));
    for (std::size_t k = 0; conditioned && k < info.input_count; ++k) {
        dpmrt_tensor_info input;
        require(dpmrt_bundle_input(bundle, DPMRT_NETWORK_UNET, k, &input, &error));
        const std::string role = input.role;
        if (role != "sample" && role != "timestep") give(conditions, input, guided);
        if (role != "sample" || info.extra_channels == 0) continue;
        input.role = DPMRT_EXTRA_CHANNELS;
        input.shape[info.channel_axis] = info.extra_channels;
        give(conditions, input, guided);
    }
    dpmrt_bundle_free(bundle);

    dpmrt_session_params session_params = dpmrt_session_default_params();
    session_params.guided = guided ? 1 : 0;
    session_params.shape[session_params.rank++] = kBatch;
    for (const char *side = argv[4]; side != nullptr; side = std::strchr(side, ',')) {
        side += *side == ',' ? 1 : 0;
        session_params.shape[session_params.rank++] = static_cast<std::size_t>(std::strtoul(side, nullptr, 10));
    }
    std::size_t size = 1;
    for (std::size_t k = 0; k < session_params.rank; ++k) size *= session_params.shape[k];
    const dpmrt_onnxruntime_use use{network, conditions};
    const dpmrt_engine engine = dpmrt_onnxruntime_engine(&use);
    std::vector<dpmrt_session *> sessions(kThreads);
    for (dpmrt_session *&session : sessions) {
        require(dpmrt_session_create(plan, &engine, &session_params, &session, &error));
    }
    dpmrt_plan_free(plan);
    std::vector<std::vector<float>> samples(kThreads, std::vector<float>(size));
    std::vector<std::thread> threads;
    for (std::size_t k = 0; k < kThreads; ++k) {
        threads.emplace_back([&, k] {
            dpmrt_error own;
            require_ok(dpmrt_session_run(sessions[k], &run, samples[k].data(), &own), own);
        });
    }
    for (std::thread &thread : threads) thread.join();
    for (const auto &one : samples) REQUIRE(one == samples[0]);
    for (dpmrt_session *session : sessions) dpmrt_session_free(session);
    dpmrt_conditions_free(conditions);
    dpmrt_onnxruntime_free(network);
    std::ofstream stream(argv[3], std::ios::binary);
    for (const float value : samples[0]) stream.write(reinterpret_cast<const char *>(&value), sizeof value);
    std::printf("DPMRT_OK\n");
    return stream.good() ? 0 : 1;
}
