#include <cstring>

#include "../numbers.h"
#include "network.h"

namespace dpmrt_adapter {
namespace {

constexpr char kRefused[] = "ONNX Runtime refuses the buffers";

ONNXTensorElementDataType element_of(dpmrt_tensor_type type) {
    switch (type) {
        case DPMRT_TENSOR_FLOAT32: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
        case DPMRT_TENSOR_FLOAT16: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
        case DPMRT_TENSOR_BFLOAT16: return ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;
        case DPMRT_TENSOR_INT64: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
        case DPMRT_TENSOR_INT32: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
    }
    return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

std::vector<std::int64_t> shape_of(const std::size_t *shape, std::size_t rank) {
    std::vector<std::int64_t> made;
    for (std::size_t k = 0; k < rank; ++k) made.push_back(static_cast<std::int64_t>(shape[k]));
    return made;
}

}  // namespace

OrtCall::OrtCall(const OrtNetwork &network, const dpmrt_conditions *conditions, const dpmrt_binding &binding)
    : network_(network), binding_(binding), rows_(binding.shape[0]) {
    const NetworkSpec &spec = network.spec();
    spec.check_session(binding, conditions);
    const std::size_t axis = spec.channel_axis;
    for (std::size_t k = 0; k < binding.rank; ++k) {
        count_ *= binding.shape[k];
        if (k != axis) (k < axis ? outer_ : inner_) *= binding.shape[k];
    }
    taken_ = binding.shape[axis] + static_cast<std::size_t>(spec.extra_channels);
    channels_ = binding.shape[axis] * static_cast<std::size_t>(binding.parts);
    given_ = spec.output_channels(binding);
    options_ = held<OrtRunOptions>(kRefused, [](OrtRunOptions **made) { return ort().CreateRunOptions(made); });
    check_ort(ort().RunOptionsSetRunLogSeverityLevel(options_.get(), ORT_LOGGING_LEVEL_FATAL), kRefused);
    bind_inputs(conditions);
    const Tensor &out = spec.outputs[spec.out];
    const bool direct = same_numbers(binding.dtype, out.type) && given_ == channels_;
    std::vector<std::int64_t> shape = shape_of(binding.shape, binding.rank);
    shape[axis] = static_cast<std::int64_t>(given_);
    const std::size_t bytes = outer_ * given_ * inner_ * size_of(out.type);
    if (!direct) output_.resize(bytes);
    for (std::size_t k = 0; k < (direct ? binding.output_count : 1); ++k) {
        auto call = held<OrtIoBinding>(
            kRefused, [&](OrtIoBinding **made) { return ort().CreateIoBinding(network_.session(), made); });
        for (const auto &[name, input] : inputs_) check_ort(ort().BindInput(call.get(), name, input), kRefused);
        OrtValue *target = value(direct ? binding.outputs[k] : output_.data(), bytes, shape, out.type);
        check_ort(ort().BindOutput(call.get(), out.name.c_str(), target), kRefused);
        calls_.push_back(std::move(call));
    }
}

void OrtCall::bind_inputs(const dpmrt_conditions *conditions) {
    const NetworkSpec &spec = network_.spec();
    const Tensor &sample = spec.inputs[spec.sample];
    const bool direct = same_numbers(binding_.dtype, sample.type) && spec.extra_channels == 0;
    const std::size_t bytes = outer_ * taken_ * inner_ * size_of(sample.type);
    if (!direct) input_.resize(bytes);
    // ONNX Runtime writes into no input.
    void *state = direct ? const_cast<void *>(binding_.input) : input_.data();
    std::vector<std::int64_t> taken = shape_of(binding_.shape, binding_.rank);
    taken[spec.channel_axis] = static_cast<std::int64_t>(taken_);
    inputs_.emplace_back(sample.name.c_str(), value(state, bytes, taken, sample.type));
    const Tensor &time = spec.inputs[spec.timestep];
    std::vector<std::int64_t> shape = time.shape;
    std::size_t times = 1;
    for (std::int64_t &side : shape) {
        if (side == 0) side = static_cast<std::int64_t>(rows_);
        times *= static_cast<std::size_t>(side);
    }
    time_.resize(times * size_of(time.type));
    inputs_.emplace_back(time.name.c_str(), value(time_.data(), time_.size(), shape, time.type));
    for (std::size_t k = 0; k < dpmrt_conditions_count(conditions); ++k) {
        dpmrt_condition_info info;
        dpmrt_error error;
        check(dpmrt_conditions_get(conditions, k, &info, &error), error);
        if (spec.extra_channels > 0 && std::strcmp(info.role, DPMRT_EXTRA_CHANNELS) == 0) {
            bind_extra(info);
        } else {
            bind_condition(info);
        }
    }
    if (spec.extra_channels > 0 && extra_ == nullptr) {
        refuse(DPMRT_ERROR_ARGUMENT, "the conditions are another network's", "no " DPMRT_EXTRA_CHANNELS, DPMRT_EXTRA_CHANNELS,
               "make conditions for this bundle");
    }
}

void OrtCall::bind_condition(const dpmrt_condition_info &info) {
    std::vector<std::int64_t> given = shape_of(info.shape, info.rank);
    if (info.rank > 0) given[0] = static_cast<std::int64_t>(rows_);
    const std::size_t size = info.row_bytes * (info.rank > 0 ? rows_ : 1);
    const auto named = [&] {
        for (const Tensor &input : network_.spec().inputs) {
            if (input.name == info.name) return input.name.c_str();
        }
        refuse(DPMRT_ERROR_ARGUMENT, "the conditions are another network's", info.name, "the inputs of this one");
    }();
    inputs_.emplace_back(named, value(const_cast<void *>(info.data), size, given, info.type));
}

void OrtCall::bind_extra(const dpmrt_condition_info &info) {
    std::vector<std::int64_t> wanted = shape_of(binding_.shape, binding_.rank);
    wanted[network_.spec().channel_axis] = network_.spec().extra_channels;
    std::vector<std::int64_t> given = shape_of(info.shape, info.rank);
    wanted[0] = given[0] = static_cast<std::int64_t>(rows_);
    const dpmrt_tensor_type type = network_.spec().inputs[network_.spec().sample].type;
    if (info.type != type) {
        refuse(DPMRT_ERROR_ARGUMENT, "the conditions are another network's", std::string(info.role) + " of " + type_name(info.type),
               type_name(type), "make conditions for this bundle");
    }
    if (given != wanted) {
        refuse(DPMRT_ERROR_SHAPE, std::string("the condition ") + info.role + " does not fit the sample", show(given), show(wanted),
               "make conditions for the session's shape");
    }
    extra_ = static_cast<const std::uint8_t *>(info.data);
}

OrtValue *OrtCall::value(void *data, std::size_t bytes, const std::vector<std::int64_t> &shape, dpmrt_tensor_type type) {
    values_.push_back(held<OrtValue>(kRefused, [&](OrtValue **made) {
        return ort().CreateTensorWithDataAsOrtValue(network_.memory(), data, bytes, shape.data(), shape.size(),
                                                    element_of(type), made);
    }));
    return values_.back().get();
}

void OrtCall::run(double t, std::size_t output) {
    const NetworkSpec &spec = network_.spec();
    const Tensor &time = spec.inputs[spec.timestep];
    fill_number(t, time_.size() / size_of(time.type), time.type, time_.data());
    if (!input_.empty()) copy_in();
    const OrtIoBinding *call = calls_[output_.empty() ? output : 0].get();
    check_ort(ort().RunWithBinding(network_.session(), options_.get(), call), "the network failed in ONNX Runtime");
    if (!output_.empty()) copy_out(output);
}

// Casts the state, and puts behind its channels what there is more.
void OrtCall::copy_in() {
    const dpmrt_tensor_type type = network_.spec().inputs[network_.spec().sample].type;
    const std::size_t item = binding_.dtype == DPMRT_FLOAT32 ? sizeof(float) : sizeof(double);
    const std::size_t own = count_ / outer_, all = taken_ * inner_;
    const std::size_t more = (all - own) * size_of(type);
    const auto *from = static_cast<const std::uint8_t *>(binding_.input);
    for (std::size_t k = 0; k < outer_; ++k) {
        std::uint8_t *to = input_.data() + k * all * size_of(type);
        write_numbers(from + k * own * item, binding_.dtype, own, type, to);
        if (more > 0) std::memcpy(to + own * size_of(type), extra_ + k * more, more);
    }
}

// Casts the channels that are read, and leaves out those behind.
void OrtCall::copy_out(std::size_t output) const {
    const dpmrt_tensor_type type = network_.spec().outputs[network_.spec().out].type;
    const std::size_t item = binding_.dtype == DPMRT_FLOAT32 ? sizeof(float) : sizeof(double);
    auto *to = static_cast<std::uint8_t *>(binding_.outputs[output]);
    for (std::size_t k = 0; k < outer_; ++k) {
        read_numbers(output_.data() + k * given_ * inner_ * size_of(type), type, channels_ * inner_, binding_.dtype,
                     to + k * channels_ * inner_ * item);
    }
}

}  // namespace dpmrt_adapter
