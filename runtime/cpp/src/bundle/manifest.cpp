#include "manifest.h"

#include <algorithm>
#include <cmath>

#include "../failure.h"
#include "decode.h"
#include "files.h"
#include "text.h"
#include "typed.h"

namespace dpmrt_core {
namespace {

constexpr std::int64_t kMostSteps = 10000;
constexpr std::int64_t kMostLabel = 2147483647;

using Names = std::vector<std::string>;

struct Used {
    std::string field, path;
};

// Field and path of all files that the manifest makes use of.
std::vector<Used> used_paths(const Manifest &manifest) {
    std::vector<Used> used;
    for (const auto &[field, network] : manifest.networks()) {
        const std::string name = field;
        used.push_back({name + ".path", network->path});
        for (std::size_t k = 0; k < network->data.size(); ++k) {
            used.push_back({format("%s.data[%zu]", field, k), network->data[k]});
        }
        if (network->config) used.push_back({name + ".config", *network->config});
        if (network->precision.emulated) used.push_back({name + ".precision.emulated", *network->precision.emulated});
    }
    used.push_back({"scheduler", manifest.scheduler});
    if (manifest.eps_power) used.push_back({"eps_power", *manifest.eps_power});
    return used;
}

// Whether a name stays within the folder by its parts alone.
bool inward(const std::string &name) {
    if (name.empty() || name[0] == '/' || name.find('\\') != std::string::npos || name.find('\0') != std::string::npos) {
        return false;
    }
    bool any = false;
    for (std::size_t at = 0; at <= name.size();) {
        const std::size_t end = std::min(name.find('/', at), name.size());
        const std::string part = name.substr(at, end - at);
        if (part == "..") return false;
        any = any || (!part.empty() && part != ".");
        at = end + 1;
    }
    return any && !is_rooted(name);
}

void check_recorded(const Manifest &manifest) {
    for (const auto &[field, name] : used_paths(manifest)) {
        if (manifest.file(name) != nullptr) continue;
        Names names;
        for (const FileRecord &file : manifest.files) names.push_back(file.name);
        refuse_manifest("`" + field + "` names a file without a record", quoted(name), "one of `files`: " + listed(names));
    }
}

// `needed` is in order.
void check_roles(const std::string &field, const std::vector<TensorSpec> &specs, const Names &needed) {
    Names roles;
    for (const TensorSpec &spec : specs) roles.push_back(spec.role);
    const Names known = sorted(roles);
    if (known.size() == roles.size() && std::includes(known.begin(), known.end(), needed.begin(), needed.end())) return;
    refuse_manifest("`" + field + "` has the wrong roles", listed(roles),
           listed(needed, " and ") + ", and each role once");
}

// A vector-Jacobian graph takes what the network takes, and a cotangent.
void check_same_inputs(const Network &unet, const Network &vjp) {
    Names own, roles;
    for (const TensorSpec &spec : unet.inputs) own.push_back(spec.role);
    for (const TensorSpec &spec : vjp.inputs) {
        if (spec.role != "cotangent") roles.push_back(spec.role);
    }
    own = sorted(own);
    roles = sorted(roles);
    if (roles == own) return;
    refuse_manifest("`vjp.inputs` are not those of the network", listed(roles),
           listed(own) + " and cotangent");
}

void check_between(const char *field, std::int64_t value, std::int64_t least, std::int64_t most) {
    if (value >= least && value <= most) return;
    out_of_range(field, decimal(value), decimal(least) + " to " + decimal(most));
}

void check_axis(const std::string &field, const Axis &axis, const Names &free) {
    if (!std::binary_search(free.begin(), free.end(), axis.name)) {
        out_of_range(field, "an axis that no tensor has", "one of " + listed(free));
    }
    if (axis.max && *axis.max < axis.min) {
        out_of_range(field, "min " + decimal(axis.min) + ", max " + decimal(*axis.max),
                     "the smaller one first");
    }
    if (!axis.takes(axis.opt)) out_of_range(field + ".opt", decimal(axis.opt), axis.text());
}

void check_tensors(const std::string &field, const std::vector<TensorSpec> &specs, Names &free) {
    for (std::size_t k = 0; k < specs.size(); ++k) {
        if (specs[k].shape.size() > DPMRT_MAX_RANK) {
            out_of_range(field + format("[%zu].shape", k), format("%zu axes", specs[k].shape.size()),
                         format("at most %d", DPMRT_MAX_RANK));
        }
        for (const Side &side : specs[k].shape) {
            if (side.free()) free.push_back(side.name);
        }
    }
}

void check_numbers(const Manifest &manifest) {
    const double low = manifest.data_range[0], high = manifest.data_range[1];
    if (!(low < high)) {
        out_of_range("data_range", "[" + shown(low) + ", " + shown(high) + "]", "finite numbers, the lower one first");
    }
    check_between("defaults.steps", manifest.steps, 1, kMostSteps);
    if (manifest.guidance) {
        check_between("guidance.classes", manifest.guidance->classes, 1, kMostLabel);
        check_between("guidance.null_label", manifest.guidance->null_label, 0, kMostLabel);
    }
    for (const auto &[field, network] : manifest.networks()) {
        Names free;
        check_tensors(std::string(field) + ".inputs", network->inputs, free);
        check_tensors(std::string(field) + ".outputs", network->outputs, free);
        free = sorted(free);
        for (const Axis &axis : network->axes) check_axis(std::string(field) + ".axes[" + quoted(axis.name) + "]", axis, free);
    }
}

}  // namespace

void refuse_manifest(std::string_view what, std::string_view got, std::string_view expected, std::string_view fix) {
    fail(DPMRT_ERROR_FORMAT, std::string("dpmrt.json: ").append(what), got, expected, fix);
}

void out_of_range(std::string_view field, std::string_view got, std::string_view expected) {
    refuse_manifest(std::string("`").append(field).append("` is out of range"), got, expected, kMend);
}

void check_inside(const std::string &root, const std::string &field, const std::string &name) {
    bool inside = inward(name);
    try {
        inside = inside && lies_within(root, joined(root, name));
    } catch (const FileError &error) {
        fail(DPMRT_ERROR_FILE, "the bundle cannot be read", error.what, "a readable folder");
    }
    if (!inside) {
        refuse_manifest("a path leaves the bundle", field + " = " + quoted(name), "a relative path inside the folder");
    }
}

Manifest parse_manifest(std::string_view raw, const std::string &root) {
    Manifest manifest = decode_manifest(raw);
    for (const auto &[field, name] : used_paths(manifest)) check_inside(root, field, name);
    for (const FileRecord &file : manifest.files) {
        check_inside(root, "files[" + quoted(file.name) + "]", file.name);
    }
    check_recorded(manifest);
    const auto roles = [](const std::string &kind, const Network &network, const Names &inputs,
                          const char *output) {
        check_roles(kind + ".inputs", network.inputs, inputs);
        check_roles(kind + ".outputs", network.outputs, {output});
    };
    roles("unet", manifest.unet, {"sample", "timestep"}, "out_sample");
    if (manifest.classifier) {
        roles("classifier", *manifest.classifier, {"class_labels", "sample", "timestep"}, "gradient");
    }
    if (manifest.vjp) {
        roles("vjp", *manifest.vjp, {"cotangent", "sample", "timestep"}, "vjp");
        check_same_inputs(manifest.unet, *manifest.vjp);
    }
    check_numbers(manifest);
    return manifest;
}

}  // namespace dpmrt_core
