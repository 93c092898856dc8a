// The C functions of conditions.
#include "dpmrt/conditions.h"

#include <memory>
#include <string>
#include <vector>

#include "../failure.h"
#include "../guard.h"
#include "conditions.h"
#include "handle.h"
#include "text.h"

struct dpmrt_conditions {
    std::size_t batch = 0;
    std::int64_t classes = 0;
    std::int64_t null_label = -1;
    std::vector<dpmrt_core::Condition> all;
};

namespace {

using dpmrt_core::Condition;
using dpmrt_core::fail;
using dpmrt_core::guarded;
using dpmrt_core::needed;

constexpr char kLabels[] = "class_labels";

Condition &find(dpmrt_conditions *conditions, const char *role) {
    needed(conditions, "conditions");
    needed(role, "role");
    std::vector<std::string> known;
    for (Condition &one : conditions->all) {
        if (one.role == role) return one;
        known.push_back(one.role);
    }
    fail(DPMRT_ERROR_ARGUMENT, "conditions has a name that the network does not know", dpmrt_core::quoted(role),
         dpmrt_core::listed(known), "leave it out; `dpmrt inspect BUNDLE` lists what the network takes");
}

void check_label(const dpmrt_conditions &conditions, std::int64_t label) {
    const std::int64_t top = conditions.classes > 0 ? conditions.classes - 1 : INT64_MAX;
    if ((label >= 0 && label <= top) || (conditions.null_label >= 0 && label == conditions.null_label)) return;
    std::string expected = "a whole number from 0 to " + dpmrt_core::decimal(top);
    if (conditions.null_label > top) expected += ", or " + dpmrt_core::decimal(conditions.null_label) + " for no class";
    fail(DPMRT_ERROR_ARGUMENT, "label is out of range", dpmrt_core::decimal(label), expected);
}

void set(dpmrt_conditions *conditions, const char *role, const void *data, dpmrt_tensor_type type, const std::size_t *shape,
         std::size_t rank, bool negative) {
    Condition &condition = find(conditions, role);
    needed(data, "data");
    if (rank > 0) needed(shape, "shape");
    if (type != DPMRT_TENSOR_FLOAT32 && type != DPMRT_TENSOR_INT64) {
        fail(DPMRT_ERROR_ARGUMENT, "conditions are given in another type", dpmrt_core::format("type %d", type),
             "DPMRT_TENSOR_FLOAT32 or DPMRT_TENSOR_INT64");
    }
    dpmrt_core::Given given{data, type, {}};
    for (std::size_t k = 0; k < rank && k <= DPMRT_MAX_RANK; ++k) {
        given.shape.push_back(shape[k] > INT32_MAX ? -1 : static_cast<std::int64_t>(shape[k]));
    }
    condition.set(given, negative);
}

}  // namespace

extern "C" {

dpmrt_status dpmrt_conditions_create(const dpmrt_bundle *bundle, size_t batch, dpmrt_conditions **conditions,
                                     dpmrt_error *error) {
    return guarded(error, [&] {
        needed(bundle, "bundle");
        needed(conditions, "conditions");
        if (batch == 0 || batch > INT32_MAX) {
            fail(DPMRT_ERROR_ARGUMENT, "batch is out of range", dpmrt_core::format("%zu", batch), "1 or more");
        }
        const dpmrt_core::Manifest &manifest = bundle->open.manifest;
        auto made = std::make_unique<dpmrt_conditions>();
        made->batch = batch;
        made->classes = bundle->open.classes.value_or(0);
        if (manifest.guidance) made->null_label = manifest.guidance->null_label;
        for (const dpmrt_core::TensorSpec &spec : manifest.unet.inputs) {
            if (spec.role != "sample" && spec.role != "timestep") made->all.emplace_back(spec, manifest.unet, batch);
        }
        const std::int64_t extra = manifest.unet.extra_channels();
        if (extra > 0) made->all.emplace_back(*manifest.unet.input("sample"), manifest.unet, batch, extra);
        if (made->null_label >= 0) {
            const std::size_t one = 1;
            set(made.get(), kLabels, &made->null_label, DPMRT_TENSOR_INT64, &one, 1, false);
            set(made.get(), kLabels, &made->null_label, DPMRT_TENSOR_INT64, &one, 1, true);
        }
        *conditions = made.release();
    });
}

void dpmrt_conditions_free(dpmrt_conditions *conditions) { delete conditions; }

dpmrt_status dpmrt_conditions_labels(dpmrt_conditions *conditions, const int64_t *labels, size_t count,
                                     dpmrt_error *error) {
    return guarded(error, [&] {
        find(conditions, kLabels);
        needed(labels, "labels");
        if (count != 1 && count != conditions->batch) {
            fail(DPMRT_ERROR_ARGUMENT, "there must be one label for each sample",
                 dpmrt_core::format("%zu labels", count), dpmrt_core::format("%zu", conditions->batch),
                 "give one for each, or one for all");
        }
        for (std::size_t k = 0; k < count; ++k) check_label(*conditions, labels[k]);
        set(conditions, kLabels, labels, DPMRT_TENSOR_INT64, &count, 1, false);
    });
}

dpmrt_status dpmrt_conditions_set(dpmrt_conditions *conditions, const char *role, const void *data, dpmrt_tensor_type type,
                                  const size_t *shape, size_t rank, dpmrt_error *error) {
    return guarded(error, [&] { set(conditions, role, data, type, shape, rank, false); });
}

dpmrt_status dpmrt_conditions_negative(dpmrt_conditions *conditions, const char *role, const void *data,
                                       dpmrt_tensor_type type, const size_t *shape, size_t rank, dpmrt_error *error) {
    return guarded(error, [&] { set(conditions, role, data, type, shape, rank, true); });
}

size_t dpmrt_conditions_count(const dpmrt_conditions *conditions) { return conditions == nullptr ? 0 : conditions->all.size(); }

size_t dpmrt_conditions_batch(const dpmrt_conditions *conditions) { return conditions == nullptr ? 0 : conditions->batch; }

dpmrt_status dpmrt_conditions_get(const dpmrt_conditions *conditions, size_t index, dpmrt_condition_info *info,
                                  dpmrt_error *error) {
    return guarded(error, [&] {
        needed(conditions, "conditions");
        needed(info, "info");
        dpmrt_core::check_index(index, conditions->all.size(), "a condition");
        const Condition &found = conditions->all[index];
        if (found.data.empty()) {
            fail(DPMRT_ERROR_ARGUMENT, "the network is conditioned on " + found.role + ", which is missing",
                 "no condition " + found.role, found.expected,
                 found.role == kLabels ? "dpmrt_conditions_labels" : "dpmrt_conditions_set");
        }
        dpmrt_condition_info made{};
        made.role = found.role.c_str();
        made.name = found.name.c_str();
        made.type = dpmrt_core::tensor_type(found.dtype);
        made.rank = found.shape.size();
        for (std::size_t k = 0; k < made.rank; ++k) made.shape[k] = static_cast<std::size_t>(found.shape[k]);
        made.data = found.data.data();
        made.row_bytes = found.row_bytes;
        *info = made;
    });
}

}  // extern "C"
