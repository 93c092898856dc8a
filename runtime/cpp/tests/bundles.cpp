// Opens the bundles that are named, and prints what is known of each, or the error.
#include <cstdio>
#include <cstdlib>

#include "dpmrt/bundle.h"

namespace {

dpmrt_error error;

void require(dpmrt_status status) {
    if (status == DPMRT_OK) return;
    std::fprintf(stderr, "%s: %s\n", dpmrt_status_name(status), error.text);
    std::exit(1);
}

void print(const char *kind, const dpmrt_tensor_info &tensor) {
    std::printf("%s %s %s %d", kind, tensor.role, tensor.name, static_cast<int>(tensor.type));
    for (std::size_t k = 0; k < tensor.rank; ++k) {
        if (tensor.axis[k] != nullptr) {
            std::printf(" %s", tensor.axis[k]);
        } else {
            std::printf(" %lld", static_cast<long long>(tensor.shape[k]));
        }
    }
    std::printf("\n");
}

void print(const dpmrt_bundle *bundle, dpmrt_network kind) {
    dpmrt_network_info network;
    if (dpmrt_bundle_network(bundle, kind, &network, &error) != DPMRT_OK) {
        std::printf("network %d: %s\n", static_cast<int>(kind), error.text);
        return;
    }
    std::printf("network %d: %s %s %lld %s\n", static_cast<int>(kind), network.graph.name, network.graph.sha256,
                static_cast<long long>(network.graph.bytes), network.precision);
    std::printf("channels %zu %lld %lld %d\n", network.channel_axis, static_cast<long long>(network.extra_channels),
                static_cast<long long>(network.learned_channels), network.folded_guidance);
    dpmrt_tensor_info tensor;
    for (std::size_t k = 0; k < network.input_count; ++k) {
        require(dpmrt_bundle_input(bundle, kind, k, &tensor, &error));
        print("input", tensor);
    }
    for (std::size_t k = 0; k < network.output_count; ++k) {
        require(dpmrt_bundle_output(bundle, kind, k, &tensor, &error));
        print("output", tensor);
    }
    dpmrt_file_info file;
    for (std::size_t k = 0; k < network.data_count; ++k) {
        require(dpmrt_bundle_data(bundle, kind, k, &file, &error));
        std::printf("data %s %s\n", file.name, file.sha256);
    }
    dpmrt_axis_info axis;
    for (std::size_t k = 0; k < network.axis_count; ++k) {
        require(dpmrt_bundle_axis(bundle, kind, k, &axis, &error));
        std::printf("axis %s %lld %lld %lld %lld\n", axis.name, static_cast<long long>(axis.opt),
                    static_cast<long long>(axis.min), static_cast<long long>(axis.max),
                    static_cast<long long>(axis.multiple));
    }
    if (dpmrt_bundle_input(bundle, kind, network.input_count, &tensor, &error) != DPMRT_ERROR_ARGUMENT) std::abort();
}

void print(const dpmrt_bundle *bundle) {
    dpmrt_bundle_info info;
    require(dpmrt_bundle_describe(bundle, &info, &error));
    std::printf("bundle %s: %s [%g, %g], %lld steps\n", info.name, info.prediction, info.data_range[0],
                info.data_range[1], static_cast<long long>(info.steps));
    std::printf("guidance %d: %lld %lld %g\n", info.guided, static_cast<long long>(info.classes),
                static_cast<long long>(info.null_label), info.guidance_scale);
    std::printf("sample");
    for (std::size_t k = 0; k < info.rank; ++k) std::printf(" %lld", static_cast<long long>(info.sample[k]));
    std::printf("\n");
    print(bundle, DPMRT_NETWORK_UNET);
    print(bundle, DPMRT_NETWORK_CLASSIFIER);
}

}  // namespace

int main(int argc, char **argv) {
    dpmrt_bundle *bundle = nullptr;
    if (dpmrt_bundle_open(nullptr, &bundle, &error) != DPMRT_ERROR_ARGUMENT) return 1;
    if (dpmrt_bundle_open("x", nullptr, nullptr) != DPMRT_ERROR_ARGUMENT) return 1;
    dpmrt_bundle_free(nullptr);
    for (int k = 1; k < argc; ++k) {
        const dpmrt_status status = dpmrt_bundle_open(argv[k], &bundle, &error);
        // A byte that no text holds parts the answers.
        std::printf("\f%s\n", dpmrt_status_name(status));
        if (status != DPMRT_OK) {
            std::printf("%s", error.text);
            continue;
        }
        print(bundle);
        dpmrt_bundle_free(bundle);
    }
    return 0;
}
