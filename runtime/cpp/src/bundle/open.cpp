#include "open.h"

#include <cmath>

#include "../failure.h"
#include "../json.h"
#include "files.h"
#include "manifest.h"
#include "text.h"

namespace dpmrt_core {
namespace {

using Kind = Json::Kind;

Json read_json(const std::string &root, const std::string &name) {
    Json value;
    try {
        value = Json::parse(read_file(joined(root, name), kMostText), true);
    } catch (const FileError &error) {
        if (error.missing) {
            fail(DPMRT_ERROR_FILE, "a file of the bundle is missing", "no " + name + " in " + root,
                 name, kExportAgain);
        }
        fail(DPMRT_ERROR_FILE, name + " cannot be read", error.what, "a readable file");
    } catch (const JsonError &error) {
        fail(DPMRT_ERROR_FORMAT, name + " is not JSON",
             format("%s, at byte %zu", error.what.c_str(), error.offset), "a JSON object", kExportAgain);
    }
    if (!value.is(Kind::object)) {
        fail(DPMRT_ERROR_FORMAT, name + " is not a JSON object", value.name(), "a JSON object", kExportAgain);
    }
    return value;
}

std::optional<std::int64_t> whole(const Json *value) {
    if (value == nullptr || !value->whole() || std::abs(value->number()) > 1e15) return std::nullopt;
    return static_cast<std::int64_t>(value->number());
}

// What the scheduler's config says that the network predicts; some classes mean it without saying so.
std::string configured_prediction(const Json &config) {
    constexpr struct {
        const char *scheduler, *given, *meant;
    } kOwn[] = {{"EDMEulerScheduler", "epsilon", "edm"},
                {"EDMDPMSolverMultistepScheduler", "epsilon", "edm"},
                {"FlowMatchEulerDiscreteScheduler", "epsilon", "flow"},
                {"FlowMatchHeunDiscreteScheduler", "epsilon", "flow"},
                {"ScoreSdeVeScheduler", "epsilon", "score"}};
    const Json *type = config.find("prediction_type"), *scheduler = config.find("_class_name");
    if (type != nullptr && !type->is(Kind::text)) return type->is(Kind::null) ? "None" : type->name();
    const std::string given = type == nullptr ? "epsilon" : type->text();
    if (scheduler == nullptr || !scheduler->is(Kind::text)) return quoted(given);
    for (const auto &own : kOwn) {
        if (scheduler->text() == own.scheduler && given == own.given) return quoted(own.meant);
    }
    return quoted(given == "flow_prediction" ? "flow" : given);
}

std::string shape_text(const std::vector<Side> &shape) {
    std::vector<std::string> sides;
    for (const Side &side : shape) sides.push_back(side.free() ? side.name : decimal(side.size));
    return "(" + (sides.empty() ? "" : listed(sides)) + (sides.size() == 1 ? ",)" : ")");
}

void check(const Manifest &manifest, const Json &scheduler) {
    for (const auto &[field, network] : manifest.networks()) {
        const TensorSpec *sample = network->input("sample");
        if (static_cast<std::size_t>(network->channel_axis) < sample->shape.size()) continue;
        fail(DPMRT_ERROR_FORMAT, std::string("`") + field + ".channel_axis` is no axis of the sample",
             decimal(network->channel_axis),
             "an axis of " + shape_text(sample->shape) + ", behind the batch", "export the network again");
    }
    if (manifest.guidance && manifest.unet.input("class_labels") == nullptr) {
        std::vector<std::string> roles;
        for (const TensorSpec &spec : manifest.unet.inputs) roles.push_back(spec.role);
        fail(DPMRT_ERROR_FORMAT, "the manifest promises guidance by class, and the network takes no labels",
             listed(roles), "an input `class_labels`", "export the network again");
    }
    const std::string configured = configured_prediction(scheduler);
    if (configured != quoted(manifest.prediction)) {
        fail(DPMRT_ERROR_FORMAT, "manifest and scheduler disagree about what the network predicts",
             "prediction_type " + configured + " in " + manifest.scheduler,
             quoted(manifest.prediction) + ", as in dpmrt.json", "mend whichever is wrong");
    }
}

// A side that graph and axes leave open is what the config says, where that has as many axes.
std::vector<std::int64_t> usual_shape(const Network &network, const Json &config) {
    const std::vector<Side> declared = network.sample_shape();
    std::vector<std::optional<std::int64_t>> configured{whole(config.find("in_channels"))};
    const Json *size = config.find("sample_size");
    if (size != nullptr && size->whole()) configured.insert(configured.end(), 2, whole(size));
    if (size != nullptr && size->is(Kind::list)) {
        for (const Json &side : size->list()) configured.push_back(whole(&side));
    }
    if (configured.size() != declared.size()) configured.assign(declared.size(), std::nullopt);
    std::vector<std::int64_t> shape;
    for (std::size_t k = 0; k < declared.size(); ++k) {
        const Axis *axis = declared[k].free() ? network.axis(declared[k].name) : nullptr;
        const std::int64_t usual = axis != nullptr ? axis->opt : declared[k].size;
        shape.push_back(usual != 0 ? usual : std::max<std::int64_t>(configured[k].value_or(0), 0));
    }
    return shape;
}

}  // namespace

OpenBundle OpenBundle::open(const std::string &root) {
    OpenBundle opened{root, read_manifest(root), {}, {}};
    const Manifest &manifest = opened.manifest;
    const Json scheduler = read_json(root, manifest.scheduler);
    const Json config = manifest.unet.config ? read_json(root, *manifest.unet.config) : Json{};
    check(manifest, scheduler);
    opened.classes = manifest.guidance ? manifest.guidance->classes : whole(config.find("num_class_embeds"));
    opened.sample = usual_shape(manifest.unet, config);
    return opened;
}

}  // namespace dpmrt_core
