#include "schema.h"

#include <algorithm>

#include "text.h"

namespace dpmrt_core {
namespace {

template <class Items>
auto *named(Items &items, const std::string &name) {
    for (auto &item : items) {
        if (item.name == name) return &item;
    }
    return static_cast<decltype(items.data())>(nullptr);
}

const TensorSpec *of_role(const std::vector<TensorSpec> &specs, const std::string &role) {
    for (const TensorSpec &spec : specs) {
        if (spec.role == role) return &spec;
    }
    return nullptr;
}

}  // namespace

// What would otherwise be made anew in every file that holds one.
TensorSpec::TensorSpec() = default;
TensorSpec::TensorSpec(TensorSpec &&) noexcept = default;
TensorSpec &TensorSpec::operator=(TensorSpec &&) noexcept = default;
TensorSpec::~TensorSpec() = default;
Network::Network() = default;
Network::Network(Network &&) noexcept = default;
Network &Network::operator=(Network &&) noexcept = default;
Network::~Network() = default;
Manifest::Manifest() = default;
Manifest::Manifest(Manifest &&) noexcept = default;
Manifest &Manifest::operator=(Manifest &&) noexcept = default;
Manifest::~Manifest() = default;

bool Axis::takes(std::int64_t size) const {
    return min <= size && size <= max.value_or(size) && size % multiple == 0;
}

std::string Axis::text() const {
    std::string bounds = decimal(min) + (max ? " to " + decimal(*max) : " or more");
    return multiple > 1 ? bounds + ", in multiples of " + decimal(multiple) : bounds;
}

const TensorSpec *Network::input(const std::string &role) const { return of_role(inputs, role); }

const TensorSpec *Network::output(const std::string &role) const { return of_role(outputs, role); }

const Axis *Network::axis(const std::string &name) const { return named(axes, name); }

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

const FileRecord *Manifest::file(const std::string &path) const { return named(files, path); }

std::vector<Manifest::Named> Manifest::networks() const {
    std::vector<Named> found{{"unet", &unet}};
    if (classifier) found.push_back({"classifier", &*classifier});
    if (vjp) found.push_back({"vjp", &*vjp});
    return found;
}

}  // namespace dpmrt_core
