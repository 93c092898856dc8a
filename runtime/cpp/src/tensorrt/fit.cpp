#include "fit.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <set>

#include "../failure.h"

namespace dpmrt_core {
namespace {

constexpr char kOldestPortable[] = "8.0";
constexpr double kFar = 1e9;

std::string shown(const std::string &digest) { return digest.size() == 64 ? digest.substr(0, 12) + "…" : digest; }

std::vector<std::int64_t> version_of(const std::string &text) {
    std::vector<std::int64_t> parts;
    for (std::size_t at = 0; at <= text.size();) {
        const std::size_t end = std::min(text.find('.', at), text.size());
        parts.push_back(std::atoll(text.substr(at, end - at).c_str()));
        at = end + 1;
    }
    return parts;
}

// The library's version in as many parts as the engine's has: Python's packages name three or four.
std::string as_many_parts(const std::string &here, const std::string &built) {
    const auto points = std::count(built.begin(), built.end(), '.');
    std::size_t end = 0;
    for (std::ptrdiff_t k = 0; k <= points && end != std::string::npos; ++k) end = here.find('.', end == 0 ? 0 : end + 1);
    return here.substr(0, end);
}

std::vector<std::string> misfits_of_gpu(const Sidecar &one, const Machine &machine) {
    std::vector<std::string> found;
    const Json &target = one.at({"request", "target"});
    const std::string here = machine.compute_capability;
    const auto text = [&](const char *name) {
        const Json *value = target.find(name);
        return value == nullptr || value->text().empty() ? std::string("unknown") : value->text();
    };
    if (text("kind") == "portable") {
        const Json *capabilities = target.find("capabilities");
        std::string all;
        bool has = false;
        for (std::size_t k = 0; capabilities != nullptr && k < capabilities->size(); ++k) {
            all += (all.empty() ? "" : ", ") + capabilities->list()[k].text();
            has = has || capabilities->list()[k].text() == here;
        }
        if (all.empty() && version_of(here) < version_of(kOldestPortable)) {
            found.push_back(misfit("compute_capability", std::string(kOldestPortable) + " or newer", here));
        }
        if (!all.empty() && !has) found.push_back(misfit("target.capabilities", all, here));
        return found;
    }
    const std::string &kind = one.at({"request", "flags", "hardware_compatibility"}).text();
    if (kind == "ampere_plus") {
        if (version_of(here) < version_of("8.0")) found.push_back(misfit("compute_capability", "8.0 or newer", here));
        return found;
    }
    if (text("compute_capability") != here) found.push_back(misfit("compute_capability", text("compute_capability"), here));
    if (text("gpu") != machine.gpu && kind == "none") found.push_back(misfit("gpu", text("gpu"), machine.gpu));
    return found;
}

// How far a shape is from the one that a profile is tuned for; nothing where it does not cover it.
std::optional<double> distance(const Json &range, const std::vector<std::int64_t> &shape) {
    const auto side = [&](const char *bound, std::size_t axis) {
        const Json *sizes = range.find(bound);
        return sizes != nullptr && sizes->size() == shape.size() ? sizes->list()[axis].number() : std::nan("");
    };
    double sum = 0;
    for (std::size_t k = 0; k < shape.size(); ++k) {
        const auto size = static_cast<double>(shape[k]);
        if (!(side("min", k) <= size && size <= side("max", k))) return std::nullopt;
        if (size > 0 && side("opt", k) > 0) sum += std::abs(std::log2(size / side("opt", k)));
    }
    return sum;
}

// Whether the shapes that an engine has fixed are these.
bool admits(const Sidecar &one, const Shapes &shapes) {
    std::size_t known = 0;
    for (const Json &spec : one.at({"inputs"}).list()) {
        const Json *name = spec.find("name"), *sides = spec.find("shape");
        if (name == nullptr || sides == nullptr) return false;
        const auto given = shapes.find(name->text());
        if (given == shapes.end()) continue;
        ++known;
        if (sides->size() != given->second.size()) return false;
        for (std::size_t k = 0; k < sides->size(); ++k) {
            const Json &declared = sides->list()[k];
            if (declared.is(Json::Kind::number) && declared.number() != static_cast<double>(given->second[k])) return false;
        }
    }
    return known == shapes.size();
}

}  // namespace

const Json &Sidecar::at(std::initializer_list<const char *> path) const {
    const Json *value = &whole;
    for (const char *name : path) {
        value = value->find(name);
        if (value == nullptr) {
            fail(DPMRT_ERROR_FORMAT, key + ".json does not follow the schema", format("no `%s`", name),
                 "the fields of version 1", "build it again: dpmrt build BUNDLE --force");
        }
    }
    return *value;
}

std::string misfit(const std::string &field, const std::string &engine, const std::string &here) {
    return field + ": built for " + engine + ", here " + here;
}

std::vector<std::string> misfits(const Sidecar &one, const std::map<std::string, std::string> &source, const Machine &machine) {
    const std::string &network = one.at({"request", "network"}).text();
    if (network != "unet") return {misfit("network", network, "unet")};
    std::vector<std::string> found;
    const Json &built = one.at({"request", "source"});
    std::set<std::string> names(built.keys().begin(), built.keys().end());
    for (const auto &entry : source) names.insert(entry.first);
    for (const std::string &name : names) {
        const Json *there = built.find(name);
        const auto here = source.find(name);
        const std::string was = there == nullptr ? "none" : there->text(), is = here == source.end() ? "none" : here->second;
        if (was != is) found.push_back(misfit("source " + name, shown(was), shown(is)));
    }
    const std::string &flavour = one.at({"request", "library", "flavour"}).text();
    const std::string &version = one.at({"request", "library", "version"}).text();
    const std::string here_version = as_many_parts(machine.version, version);
    if (flavour != "tensorrt") {
        found.push_back(misfit("library.flavour", "TensorRT-RTX " + version, "TensorRT " + here_version));
    } else if (version != here_version) {
        const auto was = version_of(version), is = version_of(here_version);
        const bool upward = one.at({"request", "flags", "version_compatible"}).boolean() && was[0] == is[0] && is >= was;
        if (!upward) found.push_back(misfit("library.version", version, here_version));
    }
    const std::string &platform = one.at({"request", "target", "platform"}).text();
    if (platform != machine.platform) found.push_back(misfit("platform", platform, machine.platform));
    // Python puts the weights in when it loads such a plan.
    if (one.at({"request", "flags", "strip_weights"}).boolean()) {
        found.push_back(misfit("flags.strip_weights", "weights that are put in later", "nothing that does"));
    }
    for (std::string &why : misfits_of_gpu(one, machine)) found.push_back(std::move(why));
    return found;
}

std::pair<int, double> choose_profile(const Sidecar &one, const Shapes &shapes) {
    if (!admits(one, shapes)) return {-1, kFar};
    const Json &profiles = one.at({"request", "profiles"});
    if (profiles.size() == 0) return {0, 0};
    std::pair<int, double> best{-1, kFar};
    for (std::size_t k = 0; k < profiles.size(); ++k) {
        double sum = 0;
        bool covers = true;
        for (const auto &shape : shapes) {
            const Json *range = profiles.list()[k].find(shape.first);
            if (range == nullptr) continue;
            const std::optional<double> far = distance(*range, shape.second);
            covers = covers && far.has_value();
            sum += far.value_or(0);
        }
        if (covers && sum < best.second) best = {static_cast<int>(k), sum};
    }
    return best;
}

}  // namespace dpmrt_core
