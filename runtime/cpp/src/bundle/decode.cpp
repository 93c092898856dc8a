#include "decode.h"

#include <algorithm>
#include <iterator>

#include "../failure.h"
#include "../json.h"
#include "text.h"
#include "typed.h"

namespace dpmrt_core {
namespace {

using Kind = Json::Kind;

constexpr std::int64_t kVersions[] = {1, 2, 3};

bool among(const std::string &given, const char *letters) {
    return given.find_first_not_of(letters) == std::string::npos;
}

bool is_role(const std::string &given) {
    return !given.empty() && given[0] >= 'a' && given[0] <= 'z' && among(given, "abcdefghijklmnopqrstuvwxyz0123456789_");
}

bool is_hash(const std::string &given) { return given.size() == 64 && among(given, "0123456789abcdef"); }

Side side(const Json &value, const std::string &path) {
    if (value.is(Kind::text)) return {0, value.text()};
    return {at_least(1, value, path, "int | str"), {}};
}

TensorSpec tensor(const Json &value, const std::string &path) {
    TensorSpec spec;
    object(value, path,
           {{"role", true,
             [&](const Json &v, const std::string &p) { spec.role = matching(v, p, "^[a-z][a-z0-9_]*$", is_role); }},
            {"name", true, text_into(spec.name)},
            {"dtype", true, one_of_into(spec.dtype, {"float32", "float16", "bfloat16", "int64", "int32"})},
            {"shape", true, list_of(spec.shape, side)}});
    return spec;
}

Axis axis(const Json &value, const std::string &path) {
    Axis made;
    object(value, path,
           {{"opt", true, size_into(made.opt)},
            {"min", false, size_into(made.min)},
            {"max", false,
             [&](const Json &v, const std::string &p) {
                 if (!v.is(Kind::null)) made.max = at_least(1, v, p, "int | null");
             }},
            {"multiple", false, size_into(made.multiple)}});
    return made;
}

// A node that stays in fp32; the runtime has no use for it.
std::string pin(const Json &value, const std::string &path) {
    std::string node, why;
    object(value, path, {{"node", true, text_into(node)}, {"why", true, text_into(why)}});
    return node;
}

Precision precision(const Json &value, const std::string &path) {
    Precision made;
    std::vector<std::string> pinned;
    object(value, path,
           {{"kind", false, one_of_into(made.kind, {"fp32", "fp16", "bf16"})},
            {"pinned", false, list_of(pinned, pin)},
            {"emulated", false, maybe_text_into(made.emulated)}});
    return made;
}

Network network(const Json &value, const std::string &path, const char *expected = "object") {
    Network made;
    object(value, path,
           {{"path", true, text_into(made.path)},
            {"inputs", true, list_of(made.inputs, tensor)},
            {"outputs", true, list_of(made.outputs, tensor)},
            {"data", false, list_of(made.data, text)},
            {"config", false, maybe_text_into(made.config)},
            {"axes", false,
             map_of([&](const std::string &name, const Json &v, const std::string &p) {
                 made.axes.emplace_back(name, axis(v, p));
             })},
            {"channel_axis", false, size_into(made.channel_axis)},
            {"precision", false, [&](const Json &v, const std::string &p) { made.precision = precision(v, p); }}},
           expected);
    return made;
}

Take maybe_network_into(std::optional<Network> &into) {
    return [&into](const Json &value, const std::string &path) {
        if (!value.is(Kind::null)) into = network(value, path, "object | null");
    };
}

FileRecord record(const Json &value, const std::string &path) {
    FileRecord made;
    object(value, path,
           {{"bytes", true, [&](const Json &v, const std::string &p) { made.bytes = at_least(0, v, p); }},
            {"sha256", true,
             [&](const Json &v, const std::string &p) { made.sha256 = matching(v, p, "^[0-9a-f]{64}$", is_hash); }}});
    return made;
}

Guidance guidance(const Json &value, const std::string &path) {
    Guidance made;
    std::string kind;
    object(value, path,
           {{"kind", true, one_of_into(kind, {"classifier_free"})},
            {"classes", true, whole_into(made.classes)},
            {"null_label", true, whole_into(made.null_label)},
            {"scale", false, [&](const Json &v, const std::string &p) { made.scale = real(v, p); }}},
           "object | null");
    return made;
}

// A number, a text or whatever else is said to be allowed; its value is for Python.
Take plain(const char *expected, bool logical) {
    return map_of([expected, logical](const std::string &, const Json &value, const std::string &path) {
        const bool small = value.is(Kind::null) || value.is(Kind::boolean);
        if (value.is(Kind::list) || value.is(Kind::object) || (small && !logical)) refuse_type(expected, value, path);
        if (value.is(Kind::number) && !value.whole()) real(value, path);
    });
}

void defaults(const Json &value, const std::string &path, Manifest &manifest) {
    std::optional<std::string> solver;
    object(value, path,
           {{"steps", false, whole_into(manifest.steps)},
            {"solver", false, maybe_text_into(solver)},
            {"options", false, plain("bool | int | float | str | null", true)}});
}

void range(const Json &value, const std::string &path, double (&into)[2]) {
    if (!value.is(Kind::list)) refuse_type("array", value, path);
    for (std::size_t k = 0; k < std::min<std::size_t>(value.size(), 2); ++k) {
        into[k] = real(value.list()[k], path + "[" + std::to_string(k) + "]");
    }
    if (value.size() != 2) refuse_value("Expected `array` of length 2", path);
}

Json parse(std::string_view raw) {
    try {
        return Json::parse(raw);
    } catch (const JsonError &error) {
        throw Failure(DPMRT_ERROR_FORMAT, "dpmrt.json is not JSON",
                      format("%s, at byte %zu", error.what.c_str(), error.offset), "a JSON object", kMend);
    }
}

std::string python(const Json *value) {
    if (value == nullptr || value->is(Kind::null)) return "None";
    if (value->is(Kind::text)) return quoted(value->text());
    if (value->is(Kind::boolean)) return value->boolean() ? "True" : "False";
    return value->is(Kind::number) ? value->text() : value->name();
}

void check_head(const Json &head) {
    const Json *format = head.find("format");
    if (format == nullptr || !format->is(Kind::text) || format->text() != "dpmrt-bundle") {
        constexpr const char *kNames[] = {"NoneType", "bool", "int", "str", "list"};
        const bool whole_number = !head.is(Kind::number) || head.whole();
        const char *kind = head.is(Kind::object) ? "" : whole_number ? kNames[static_cast<int>(head.kind())] : "float";
        throw Failure(DPMRT_ERROR_FORMAT, "dpmrt.json: `format` is not dpmrt's",
                      head.is(Kind::object) ? python(format) : quoted(kind), "'dpmrt-bundle'", kMend);
    }
    const Json *version = head.find("version");
    const bool known = version != nullptr && version->whole() &&
                       std::any_of(std::begin(kVersions), std::end(kVersions), [&](std::int64_t one) {
                           return version->text() == std::to_string(one);
                       });
    if (!known) {
        throw Failure(DPMRT_ERROR_VERSION, "dpmrt.json: unknown `version`", python(version), "1 or 2 or 3",
                      "update dpmrt, or export the network again with this version");
    }
}

}  // namespace

Manifest decode_manifest(std::string_view raw) {
    const Json head = parse(raw);
    check_head(head);
    Manifest made;
    std::string ignored;
    object(head, "$",
           {{"format", true, text_into(ignored)},
            {"version", true, [](const Json &, const std::string &) {}},
            {"name", true, text_into(made.name)},
            {"unet", true, [&](const Json &v, const std::string &p) { made.unet = network(v, p); }},
            {"scheduler", true, text_into(made.scheduler)},
            {"prediction", true,
             one_of_into(made.prediction, {"epsilon", "sample", "v_prediction", "flow", "score", "edm"})},
            {"files", true,
             map_of([&](const std::string &name, const Json &v, const std::string &p) {
                 made.files.emplace_back(name, record(v, p));
             })},
            {"guidance", false,
             [&](const Json &v, const std::string &p) {
                 if (!v.is(Kind::null)) made.guidance = guidance(v, p);
             }},
            {"data_range", false, [&](const Json &v, const std::string &p) { range(v, p, made.data_range); }},
            {"defaults", false, [&](const Json &v, const std::string &p) { defaults(v, p, made); }},
            {"provenance", false, plain("int | float | str", false)},
            {"classifier", false, maybe_network_into(made.classifier)},
            {"eps_power", false, maybe_text_into(made.eps_power)},
            {"vjp", false, maybe_network_into(made.vjp)}});
    return made;
}

}  // namespace dpmrt_core
