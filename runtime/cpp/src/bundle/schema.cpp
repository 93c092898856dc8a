#include "schema.h"

#include <algorithm>

#include "../failure.h"

namespace dpmrt_core {
namespace {

template <class Pairs>
auto *find(Pairs &pairs, const std::string &key) {
    const auto found = std::find_if(pairs.begin(), pairs.end(), [&](const auto &pair) { return pair.first == key; });
    return found == pairs.end() ? nullptr : &found->second;
}

const TensorSpec *of_role(const std::vector<TensorSpec> &specs, const std::string &role) {
    const auto found = std::find_if(specs.begin(), specs.end(), [&](const TensorSpec &spec) { return spec.role == role; });
    return found == specs.end() ? nullptr : &*found;
}

}  // namespace

bool Axis::takes(std::int64_t size) const {
    return min <= size && size <= max.value_or(size) && size % multiple == 0;
}

std::string Axis::text() const {
    const auto shown = [](std::int64_t number) { return std::to_string(number); };
    std::string bounds = max ? shown(min) + " to " + shown(*max) : shown(min) + " or more";
    return multiple > 1 ? bounds + ", in multiples of " + shown(multiple) : bounds;
}

const TensorSpec *Network::input(const std::string &role) const { return of_role(inputs, role); }

const TensorSpec *Network::output(const std::string &role) const { return of_role(outputs, role); }

const Axis *Network::axis(const std::string &name) const { return find(axes, name); }

std::optional<std::int64_t> Network::channels(const TensorSpec *spec) const {
    if (spec == nullptr || static_cast<std::size_t>(channel_axis) >= spec->shape.size()) return std::nullopt;
    const Side &side = spec->shape[static_cast<std::size_t>(channel_axis)];
    return side.free() ? std::nullopt : std::optional<std::int64_t>(side.size);
}

std::vector<Side> Network::sample_shape() const {
    const TensorSpec *spec = input("sample");
    if (spec == nullptr || static_cast<std::size_t>(channel_axis) >= spec->shape.size()) return {};
    std::vector<Side> shape(spec->shape.begin() + 1, spec->shape.end());
    const auto taken = channels(spec), given = channels(output("out_sample"));
    if (taken && given && *given < *taken) shape[static_cast<std::size_t>(channel_axis) - 1].size = *given;
    return shape;
}

std::int64_t Network::extra_channels() const {
    const auto taken = channels(input("sample")), given = channels(output("out_sample"));
    return taken && given ? std::max<std::int64_t>(*taken - *given, 0) : 0;
}

std::int64_t Network::learned_channels() const {
    const auto taken = channels(input("sample")), given = channels(output("out_sample"));
    return taken && given ? std::max<std::int64_t>(*given - *taken, 0) : 0;
}

const FileRecord *Manifest::file(const std::string &path) const { return find(files, path); }

std::vector<std::pair<const char *, const Network *>> Manifest::networks() const {
    std::vector<std::pair<const char *, const Network *>> found{{"unet", &unet}};
    if (classifier) found.emplace_back("classifier", &*classifier);
    if (vjp) found.emplace_back("vjp", &*vjp);
    return found;
}

}  // namespace dpmrt_core
