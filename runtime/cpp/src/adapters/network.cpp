#include "network.h"

#include <algorithm>
#include <cmath>

#include "refusal.h"

namespace dpmrt_adapter {
namespace {

constexpr char kAgain[] = "export the network again: dpmrt export SOURCE -o BUNDLE";

using Fill = dpmrt_status (*)(const dpmrt_bundle *, dpmrt_network, size_t, dpmrt_tensor_info *, dpmrt_error *);

std::vector<Tensor> tensors(const dpmrt_bundle *bundle, std::size_t count, Fill fill) {
    std::vector<Tensor> made(count);
    for (std::size_t k = 0; k < count; ++k) {
        dpmrt_tensor_info info;
        dpmrt_error error;
        check(fill(bundle, DPMRT_NETWORK_UNET, k, &info, &error), error);
        made[k].role = info.role;
        made[k].name = info.name;
        made[k].type = info.type;
        made[k].shape.assign(info.shape, info.shape + info.rank);
        for (std::size_t axis = 0; axis < info.rank; ++axis) {
            made[k].axes.emplace_back(info.axis[axis] != nullptr ? info.axis[axis] : "");
        }
    }
    return made;
}

std::size_t of_role(const std::vector<Tensor> &all, const char *role) {
    const auto found = std::find_if(all.begin(), all.end(), [role](const Tensor &one) { return one.role == role; });
    return static_cast<std::size_t>(found - all.begin());
}

std::vector<std::int64_t> behind_batch(const dpmrt_binding &binding) {
    std::vector<std::int64_t> shape;
    for (std::size_t k = 1; k < binding.rank; ++k) shape.push_back(static_cast<std::int64_t>(binding.shape[k]));
    return shape;
}

std::string number(double value) {
    char digits[32];
    std::snprintf(digits, sizeof digits, "%g", value);
    return digits;
}

}  // namespace

const char *type_name(dpmrt_tensor_type type) {
    switch (type) {
        case DPMRT_TENSOR_FLOAT32: return "float32";
        case DPMRT_TENSOR_FLOAT16: return "float16";
        case DPMRT_TENSOR_BFLOAT16: return "bfloat16";
        case DPMRT_TENSOR_INT64: return "int64";
        case DPMRT_TENSOR_INT32: return "int32";
    }
    return "another type";
}

std::size_t size_of(dpmrt_tensor_type type) {
    if (type == DPMRT_TENSOR_INT64) return 8;
    return type == DPMRT_TENSOR_FLOAT32 || type == DPMRT_TENSOR_INT32 ? 4 : 2;
}

std::string show(const std::vector<std::int64_t> &shape) {
    std::string sides;
    for (const std::int64_t side : shape) sides += (sides.empty() ? "" : ", ") + std::to_string(side);
    return "(" + sides + (shape.size() == 1 ? ",)" : ")");
}

std::string Tensor::text() const {
    std::string sides;
    for (std::size_t k = 0; k < shape.size(); ++k) {
        sides += (k == 0 ? "" : ", ") + (shape[k] == 0 ? axes[k] : std::to_string(shape[k]));
    }
    return name + " " + type_name(type) + "[" + sides + "]";
}

bool NetworkSpec::Limits::takes(std::int64_t size) const {
    return min <= size && (max == 0 || size <= max) && size % multiple == 0;
}

std::string NetworkSpec::Limits::text() const {
    const std::string bounds = std::to_string(min) + (max == 0 ? " or more" : " to " + std::to_string(max));
    return multiple > 1 ? bounds + ", in multiples of " + std::to_string(multiple) : bounds;
}

const NetworkSpec::Limits *NetworkSpec::limits(const std::string &axis) const {
    for (const Limits &one : limits_) {
        if (one.name == axis) return &one;
    }
    return nullptr;
}

NetworkSpec NetworkSpec::of(const dpmrt_bundle *bundle) {
    dpmrt_network_info info;
    dpmrt_error error;
    check(dpmrt_bundle_network(bundle, DPMRT_NETWORK_UNET, &info, &error), error);
    NetworkSpec made;
    made.inputs = tensors(bundle, info.input_count, dpmrt_bundle_input);
    made.outputs = tensors(bundle, info.output_count, dpmrt_bundle_output);
    made.sample = of_role(made.inputs, "sample");
    made.timestep = of_role(made.inputs, "timestep");
    made.out = of_role(made.outputs, "out_sample");
    made.channel_axis = info.channel_axis;
    made.extra_channels = info.extra_channels;
    made.learned_channels = info.learned_channels;
    for (std::size_t k = 0; k < info.axis_count; ++k) {
        dpmrt_axis_info axis;
        check(dpmrt_bundle_axis(bundle, DPMRT_NETWORK_UNET, k, &axis, &error), error);
        made.limits_.push_back({axis.name, axis.min, axis.max, axis.multiple});
    }
    return made;
}

void NetworkSpec::check_graph(const char *kind, const std::vector<Tensor> &found) const {
    const bool of_inputs = std::string(kind) == "input";
    const std::vector<Tensor> &specs = of_inputs ? inputs : outputs;
    const auto named = [](const std::vector<Tensor> &all, const std::string &name) {
        return std::find_if(all.begin(), all.end(), [&](const Tensor &one) { return one.name == name; });
    };
    for (const Tensor &tensor : found) {
        if (!of_inputs || named(specs, tensor.name) != specs.end()) continue;
        refuse(DPMRT_ERROR_FORMAT, "the manifest lacks the input `" + tensor.name + "`", tensor.text(),
               "the inputs that dpmrt.json lists", kAgain);
    }
    for (const Tensor &spec : specs) {
        const auto tensor = named(found, spec.name);
        if (tensor == found.end()) {
            std::string names;
            for (const Tensor &one : found) names += (names.empty() ? "" : ", ") + one.name;
            refuse(DPMRT_ERROR_FORMAT, std::string("the graph has no ") + kind + " `" + spec.name + "`", names, spec.text(),
                   kAgain);
        }
        bool same = tensor->type == spec.type && tensor->shape.size() == spec.shape.size();
        for (std::size_t k = 0; same && k < spec.shape.size(); ++k) {
            same = tensor->shape[k] == 0 || spec.shape[k] == 0 || tensor->shape[k] == spec.shape[k];
        }
        if (same) continue;
        refuse(DPMRT_ERROR_FORMAT, std::string("manifest and graph disagree about the ") + kind + " `" + spec.name + "`",
               tensor->text(), spec.text(), kAgain);
    }
}

void NetworkSpec::check_session(const dpmrt_binding &binding, const dpmrt_conditions *conditions) const {
    check_state(binding);
    check_output(binding);
    check_rows(binding);
    check_times(binding);
    const std::size_t batch = dpmrt_conditions_batch(conditions);
    const std::size_t samples = binding.guided != 0 ? binding.shape[0] / 2 : binding.shape[0];
    if (conditions != nullptr && batch != samples) {
        refuse(DPMRT_ERROR_SHAPE, "the conditions are for another batch than the session", std::to_string(batch) + " samples",
               std::to_string(samples), "make conditions for the session's batch");
    }
    if (conditions == nullptr && (inputs.size() > 2 || extra_channels > 0)) {
        std::string roles;
        for (std::size_t k = 0; k < inputs.size(); ++k) {
            if (k != sample && k != timestep) roles += (roles.empty() ? "" : ", ") + inputs[k].role;
        }
        if (extra_channels > 0) roles += (roles.empty() ? "" : ", ") + std::string(DPMRT_EXTRA_CHANNELS);
        refuse(DPMRT_ERROR_ARGUMENT, "the network takes conditions, and the session has none", "conditions = NULL", roles,
               "dpmrt_conditions_create");
    }
}

void NetworkSpec::check_axis(const std::string &what, const std::string &name, std::int64_t size) const {
    const Limits *allowed = limits(name);
    if (allowed == nullptr || allowed->takes(size)) return;
    refuse(DPMRT_ERROR_SHAPE, what + " has a size that the network does not take", name + " = " + std::to_string(size),
           name + " = " + allowed->text(), "choose such a size, or export the network again with wider bounds");
}

void NetworkSpec::check_state(const dpmrt_binding &binding) const {
    Tensor spec = inputs[sample];
    if (extra_channels > 0) spec.shape[channel_axis] -= extra_channels;
    const std::vector<std::int64_t> shape = behind_batch(binding);
    bool fits = spec.shape.size() == binding.rank;
    for (std::size_t k = 1; fits && k < binding.rank; ++k) fits = spec.shape[k] == 0 || spec.shape[k] == shape[k - 1];
    if (!fits) {
        std::string declared;
        for (std::size_t k = 1; k < spec.shape.size(); ++k) {
            declared += (k == 1 ? "" : ", ") + (spec.shape[k] == 0 ? spec.axes[k] : std::to_string(spec.shape[k]));
        }
        refuse(DPMRT_ERROR_SHAPE, "the sample does not fit the network", show(shape),
               "(" + declared + (spec.shape.size() == 2 ? ",)" : ")"));
    }
    for (std::size_t k = 1; k < binding.rank; ++k) {
        if (spec.shape[k] == 0) check_axis("the sample", spec.axes[k], shape[k - 1]);
    }
}

void NetworkSpec::check_rows(const dpmrt_binding &binding) const {
    const auto rows = static_cast<std::int64_t>(binding.shape[0]);
    const std::string got = binding.guided != 0 ? "batch " + std::to_string(rows / 2) + ", doubled for guidance"
                                                : "batch " + std::to_string(rows);
    for (const Tensor &spec : inputs) {
        if (spec.shape.empty() || spec.role == "timestep" || spec.role == "guidance_scale") continue;
        if (spec.shape[0] != 0 && spec.shape[0] != rows) {
            refuse(DPMRT_ERROR_SHAPE, "the network was exported for one batch size", got,
                   std::to_string(spec.shape[0]) + " in all", "export the network again with a free batch axis");
        }
        const Limits *allowed = spec.shape[0] == 0 ? limits(spec.axes[0]) : nullptr;
        if (allowed == nullptr || allowed->takes(rows)) continue;
        refuse(DPMRT_ERROR_SHAPE, "the network does not take a batch of this size", got,
               spec.axes[0] + " = " + allowed->text(),
               "ask for another batch, or export the network again with wider bounds");
    }
}

std::size_t NetworkSpec::output_channels(const dpmrt_binding &binding) const {
    const std::int64_t given = outputs[out].shape[channel_axis];
    return given != 0 ? static_cast<std::size_t>(given) : binding.shape[channel_axis];
}

void NetworkSpec::check_output(const dpmrt_binding &binding) const {
    const Tensor &spec = outputs[out];
    bool fits = spec.shape.size() == binding.rank;
    for (std::size_t k = 1; fits && k < binding.rank; ++k) {
        const auto side = static_cast<std::int64_t>(binding.shape[k]);
        fits = spec.shape[k] == 0 || (k == channel_axis ? spec.shape[k] >= side : spec.shape[k] == side);
    }
    if (!fits) {
        refuse(DPMRT_ERROR_FORMAT, "the network's output is no sample", spec.text(),
               "a tensor like the input's " + show(behind_batch(binding)));
    }
    if (binding.parts == 1) return;
    const std::size_t channels = output_channels(binding);
    if (channel_axis != 1 || channels < 2 * binding.shape[1]) {
        refuse(DPMRT_ERROR_ARGUMENT, "the plan reads a variance that the network did not learn",
               std::to_string(channels) + " output channels", std::to_string(2 * binding.shape[1]),
               "choose variance_type='fixed_small', or a network that learned its variance");
    }
}

void NetworkSpec::check_times(const dpmrt_binding &binding) const {
    const Tensor &time = inputs[timestep];
    if (time.type != DPMRT_TENSOR_INT64 && time.type != DPMRT_TENSOR_INT32) return;
    for (std::size_t k = 0; k < binding.calls; ++k) {
        if (binding.times[k] == std::rint(binding.times[k])) continue;
        refuse(DPMRT_ERROR_ARGUMENT, "the network takes whole timesteps, and the plan has others",
               "t = " + number(binding.times[k]), "whole numbers, as `" + time.name + "` is " + type_name(time.type),
               "choose a grid of whole timesteps, or export the network again with dpmrt, whose timestep is a float");
    }
}

}  // namespace dpmrt_adapter
