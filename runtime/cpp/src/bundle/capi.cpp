// The C functions of bundles: what a manifest says, as plain structs.
#include <memory>
#include <string>
#include <vector>

#include "../failure.h"
#include "../guard.h"
#include "dpmrt/bundle.h"
#include "files.h"
#include "handle.h"

namespace {

using dpmrt_core::fail;
using dpmrt_core::guarded;
using dpmrt_core::needed;

const dpmrt_core::Network &find(const dpmrt_bundle *bundle, dpmrt_network network) {
    needed(bundle, "bundle");
    const dpmrt_core::Manifest &manifest = bundle->open.manifest;
    if (network == DPMRT_NETWORK_UNET) return manifest.unet;
    if (network == DPMRT_NETWORK_CLASSIFIER && manifest.classifier) return *manifest.classifier;
    if (network == DPMRT_NETWORK_VJP && manifest.vjp) return *manifest.vjp;
    const char *name = network == DPMRT_NETWORK_CLASSIFIER ? "classifier" : network == DPMRT_NETWORK_VJP ? "vjp" : "network";
    fail(DPMRT_ERROR_ARGUMENT, std::string("the bundle has no ") + name, bundle->open.root,
         std::string("`") + name + "` in dpmrt.json", "export the network again with it");
}

dpmrt_file_info file_of(const dpmrt_bundle &bundle, const std::string &name) {
    // The manifest's reader saw to it that every file in use has a record.
    const dpmrt_core::FileRecord *file = bundle.open.manifest.file(name);
    const auto index = static_cast<std::size_t>(file - bundle.open.manifest.files.data());
    return {bundle.paths[index].c_str(), file->name.c_str(), file->sha256.c_str(), file->bytes};
}

template <class Items>
const typename Items::value_type &item(const Items &items, std::size_t index, const char *name) {
    dpmrt_core::check_index(index, items.size(), name);
    return items[index];
}

dpmrt_tensor_info tensor_of(const dpmrt_core::TensorSpec &spec) {
    dpmrt_tensor_info made{spec.role.c_str(), spec.name.c_str(), dpmrt_core::tensor_type(spec.dtype), spec.shape.size(), {}, {}};
    for (std::size_t k = 0; k < spec.shape.size(); ++k) {
        made.shape[k] = spec.shape[k].size;
        made.axis[k] = spec.shape[k].free() ? spec.shape[k].name.c_str() : nullptr;
    }
    return made;
}

}  // namespace

namespace dpmrt_core {

void check_index(std::size_t index, std::size_t count, const char *name) {
    if (index < count) return;
    fail(DPMRT_ERROR_ARGUMENT, std::string(name) + " of this number is not there",
         format("%zu", index), format("below %zu", count));
}

dpmrt_tensor_type tensor_type(const std::string &name) {
    if (name == "float16") return DPMRT_TENSOR_FLOAT16;
    if (name == "bfloat16") return DPMRT_TENSOR_BFLOAT16;
    if (name == "int64") return DPMRT_TENSOR_INT64;
    return name == "int32" ? DPMRT_TENSOR_INT32 : DPMRT_TENSOR_FLOAT32;
}

}  // namespace dpmrt_core

extern "C" {

dpmrt_status dpmrt_bundle_open(const char *folder, dpmrt_bundle **bundle, dpmrt_error *error) {
    return guarded(error, [&] {
        needed(folder, "folder");
        needed(bundle, "bundle");
        auto made = std::make_unique<dpmrt_bundle>(dpmrt_bundle{dpmrt_core::OpenBundle::open(folder), {}});
        for (const dpmrt_core::FileRecord &file : made->open.manifest.files) {
            made->paths.push_back(dpmrt_core::joined(folder, file.name));
        }
        *bundle = made.release();
    });
}

void dpmrt_bundle_free(dpmrt_bundle *bundle) { delete bundle; }

dpmrt_status dpmrt_bundle_describe(const dpmrt_bundle *bundle, dpmrt_bundle_info *info, dpmrt_error *error) {
    return guarded(error, [&] {
        needed(bundle, "bundle");
        needed(info, "info");
        const dpmrt_core::Manifest &manifest = bundle->open.manifest;
        const auto &guidance = manifest.guidance;
        dpmrt_bundle_info made{};
        made.folder = bundle->open.root.c_str();
        made.name = manifest.name.c_str();
        made.prediction = manifest.prediction.c_str();
        made.data_range[0] = manifest.data_range[0];
        made.data_range[1] = manifest.data_range[1];
        made.steps = manifest.steps;
        made.classes = bundle->open.classes.value_or(0);
        made.guided = guidance ? 1 : 0;
        made.null_label = guidance ? guidance->null_label : -1;
        made.guidance_scale = guidance ? guidance->scale : 1;
        made.rank = bundle->open.sample.size();
        for (std::size_t k = 0; k < made.rank; ++k) made.sample[k] = bundle->open.sample[k];
        *info = made;
    });
}

dpmrt_status dpmrt_bundle_network(const dpmrt_bundle *bundle, dpmrt_network network, dpmrt_network_info *info,
                                  dpmrt_error *error) {
    return guarded(error, [&] {
        const dpmrt_core::Network &found = find(bundle, network);
        needed(info, "info");
        dpmrt_network_info made{};
        made.graph = file_of(*bundle, found.path);
        made.data_count = found.data.size();
        made.input_count = found.inputs.size();
        made.output_count = found.outputs.size();
        made.axis_count = found.axes.size();
        made.precision = found.precision.kind.c_str();
        made.has_emulated = found.precision.emulated ? 1 : 0;
        if (found.precision.emulated) made.emulated = file_of(*bundle, *found.precision.emulated);
        made.channel_axis = static_cast<std::size_t>(found.channel_axis);
        made.extra_channels = found.extra_channels();
        made.learned_channels = found.learned_channels();
        made.folded_guidance = found.input("guidance_scale") != nullptr ? 1 : 0;
        *info = made;
    });
}

dpmrt_status dpmrt_bundle_data(const dpmrt_bundle *bundle, dpmrt_network network, size_t index, dpmrt_file_info *info,
                               dpmrt_error *error) {
    return guarded(error, [&] {
        const auto &found = find(bundle, network).data;
        needed(info, "info");
        *info = file_of(*bundle, item(found, index, "a file of weights"));
    });
}

dpmrt_status dpmrt_bundle_input(const dpmrt_bundle *bundle, dpmrt_network network, size_t index, dpmrt_tensor_info *info,
                                dpmrt_error *error) {
    return guarded(error, [&] {
        const auto &found = find(bundle, network).inputs;
        needed(info, "info");
        *info = tensor_of(item(found, index, "an input"));
    });
}

dpmrt_status dpmrt_bundle_output(const dpmrt_bundle *bundle, dpmrt_network network, size_t index, dpmrt_tensor_info *info,
                                 dpmrt_error *error) {
    return guarded(error, [&] {
        const auto &found = find(bundle, network).outputs;
        needed(info, "info");
        *info = tensor_of(item(found, index, "an output"));
    });
}

dpmrt_status dpmrt_bundle_axis(const dpmrt_bundle *bundle, dpmrt_network network, size_t index, dpmrt_axis_info *info,
                               dpmrt_error *error) {
    return guarded(error, [&] {
        const auto &found = find(bundle, network).axes;
        needed(info, "info");
        const dpmrt_core::Axis &axis = item(found, index, "an axis");
        *info = {axis.name.c_str(), axis.opt, axis.min, axis.max.value_or(0), axis.multiple};
    });
}

}  // extern "C"
