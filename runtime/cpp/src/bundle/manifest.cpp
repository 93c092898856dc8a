#include "manifest.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "../failure.h"
#include "decode.h"
#include "files.h"
#include "text.h"
#include "typed.h"

namespace dpmrt_core {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMostSteps = 10000;
constexpr std::int64_t kMostLabel = 2147483647;

using Named = std::pair<std::string, std::string>;

// Field and path of all files that the manifest makes use of.
std::vector<Named> used_paths(const Manifest &manifest) {
    std::vector<Named> used;
    for (const auto &[field, network] : manifest.networks()) {
        const std::string name = field;
        used.emplace_back(name + ".path", network->path);
        for (std::size_t k = 0; k < network->data.size(); ++k) {
            used.emplace_back(name + ".data[" + std::to_string(k) + "]", network->data[k]);
        }
        if (network->config) used.emplace_back(name + ".config", *network->config);
        if (network->precision.emulated) used.emplace_back(name + ".precision.emulated", *network->precision.emulated);
    }
    used.emplace_back("scheduler", manifest.scheduler);
    if (manifest.eps_power) used.emplace_back("eps_power", *manifest.eps_power);
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
    return any && !path_of(name).has_root_path();
}

// The path with its links followed, as far as it exists.
fs::path resolved(const fs::path &path) {
    std::error_code error;
    fs::path whole = fs::weakly_canonical(path, error);
    if (error) {
        throw Failure(DPMRT_ERROR_FILE, "the bundle cannot be read", error.message() + ": " + quoted(path.u8string()),
                      "a readable folder");
    }
    return whole;
}

void check_recorded(const Manifest &manifest) {
    for (const auto &[field, name] : used_paths(manifest)) {
        if (manifest.file(name) != nullptr) continue;
        std::vector<std::string> names;
        for (const auto &file : manifest.files) names.push_back(file.first);
        refuse_manifest("`" + field + "` names a file without a record", quoted(name), "one of `files`: " + listed(names));
    }
}

void check_roles(const std::string &field, const std::vector<TensorSpec> &specs, const std::set<std::string> &needed) {
    std::vector<std::string> roles;
    for (const TensorSpec &spec : specs) roles.push_back(spec.role);
    const std::set<std::string> known(roles.begin(), roles.end());
    if (known.size() == roles.size() && std::includes(known.begin(), known.end(), needed.begin(), needed.end())) return;
    refuse_manifest("`" + field + "` has the wrong roles", listed(roles),
           listed({needed.begin(), needed.end()}, " and ") + ", and each role once");
}

// A vector-Jacobian graph takes what the network takes, and a cotangent.
void check_same_inputs(const Network &unet, const Network &vjp) {
    std::set<std::string> own, roles;
    for (const TensorSpec &spec : unet.inputs) own.insert(spec.role);
    for (const TensorSpec &spec : vjp.inputs) roles.insert(spec.role);
    roles.erase("cotangent");
    if (roles == own) return;
    refuse_manifest("`vjp.inputs` are not those of the network", listed({roles.begin(), roles.end()}),
           listed({own.begin(), own.end()}) + " and cotangent");
}

void check_between(const char *field, std::int64_t value, std::int64_t least, std::int64_t most) {
    if (value >= least && value <= most) return;
    out_of_range(field, std::to_string(value), std::to_string(least) + " to " + std::to_string(most));
}

void check_axis(const std::string &field, const Axis &axis, const std::set<std::string> &free, const std::string &name) {
    if (free.count(name) == 0) {
        out_of_range(field, "an axis that no tensor has", "one of " + listed({free.begin(), free.end()}));
    }
    if (axis.max && *axis.max < axis.min) {
        out_of_range(field, "min " + std::to_string(axis.min) + ", max " + std::to_string(*axis.max),
                     "the smaller one first");
    }
    if (!axis.takes(axis.opt)) out_of_range(field + ".opt", std::to_string(axis.opt), axis.text());
}

void check_tensors(const std::string &field, const std::vector<TensorSpec> &specs, std::set<std::string> &free) {
    for (std::size_t k = 0; k < specs.size(); ++k) {
        if (specs[k].shape.size() > DPMRT_MAX_RANK) {
            out_of_range(field + "[" + std::to_string(k) + "].shape", std::to_string(specs[k].shape.size()) + " axes",
                         format("at most %d", DPMRT_MAX_RANK));
        }
        for (const Side &side : specs[k].shape) {
            if (side.free()) free.insert(side.name);
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
        std::set<std::string> free;
        check_tensors(std::string(field) + ".inputs", network->inputs, free);
        check_tensors(std::string(field) + ".outputs", network->outputs, free);
        for (const auto &[name, axis] : network->axes) {
            check_axis(std::string(field) + ".axes[" + quoted(name) + "]", axis, free, name);
        }
    }
}

}  // namespace

void refuse_manifest(const std::string &what, const std::string &got, const std::string &expected, const char *fix) {
    throw Failure(DPMRT_ERROR_FORMAT, "dpmrt.json: " + what, got, expected, fix);
}

void out_of_range(const std::string &field, const std::string &got, const std::string &expected) {
    refuse_manifest("`" + field + "` is out of range", got, expected, kMend);
}

void check_inside(const fs::path &root, const std::string &field, const std::string &name) {
    bool inside = inward(name);
    if (inside) {
        const fs::path folder = resolved(root), file = resolved(root / path_of(name));
        inside = std::mismatch(folder.begin(), folder.end(), file.begin(), file.end()).first == folder.end();
    }
    if (!inside) {
        refuse_manifest("a path leaves the bundle", field + " = " + quoted(name), "a relative path inside the folder");
    }
}

Manifest parse_manifest(std::string_view raw, const fs::path &root) {
    Manifest manifest = decode_manifest(raw);
    for (const auto &[field, name] : used_paths(manifest)) check_inside(root, field, name);
    for (const auto &file : manifest.files) check_inside(root, "files[" + quoted(file.first) + "]", file.first);
    check_recorded(manifest);
    const auto roles = [](const std::string &kind, const Network &network, const std::set<std::string> &inputs,
                          const char *output) {
        check_roles(kind + ".inputs", network.inputs, inputs);
        check_roles(kind + ".outputs", network.outputs, {output});
    };
    roles("unet", manifest.unet, {"sample", "timestep"}, "out_sample");
    if (manifest.classifier) {
        roles("classifier", *manifest.classifier, {"sample", "timestep", "class_labels"}, "gradient");
    }
    if (manifest.vjp) {
        roles("vjp", *manifest.vjp, {"sample", "timestep", "cotangent"}, "vjp");
        check_same_inputs(manifest.unet, *manifest.vjp);
    }
    check_numbers(manifest);
    return manifest;
}

}  // namespace dpmrt_core
