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

std::string role(const Spot &spot) {
    const std::string &given = spot.text();
    const bool fits = !given.empty() && given[0] >= 'a' && given[0] <= 'z';
    if (!fits || !among(given, "abcdefghijklmnopqrstuvwxyz0123456789_")) {
        spot.refuse("Expected `str` matching regex '^[a-z][a-z0-9_]*$'");
    }
    return given;
}

std::string hash(const Spot &spot) {
    const std::string &given = spot.text();
    if (given.size() != 64 || !among(given, "0123456789abcdef")) {
        spot.refuse("Expected `str` matching regex '^[0-9a-f]{64}$'");
    }
    return given;
}

TensorSpec tensor(const Spot &spot) {
    TensorSpec made;
    Members members(spot, {"role!", "name!", "dtype!", "shape!"});
    while (members.next()) {
        const Spot value = members.value();
        if (members.is("role")) made.role = role(value);
        if (members.is("name")) made.name = value.text();
        if (members.is("dtype")) made.dtype = value.one_of({"float32", "float16", "bfloat16", "int64", "int32"});
        if (!members.is("shape")) continue;
        for (const Spot &side : value.items()) {
            const bool free = side.json->is(Json::Kind::text);
            made.shape.push_back({free ? 0 : side.at_least(1, "int | str"), free ? side.text() : std::string()});
        }
    }
    return made;
}

std::vector<TensorSpec> tensors(const Spot &spot) {
    std::vector<TensorSpec> made;
    for (const Spot &item : spot.items()) made.push_back(tensor(item));
    return made;
}

Axis axis(const Spot &spot) {
    Axis made;
    Members members(spot, {"opt!", "min", "max", "multiple"});
    while (members.next()) {
        const Spot value = members.value();
        if (members.is("opt")) made.opt = value.at_least(1);
        if (members.is("min")) made.min = value.at_least(1);
        if (members.is("max") && !value.null()) made.max = value.at_least(1, "int | null");
        if (members.is("multiple")) made.multiple = value.at_least(1);
    }
    return made;
}

// Nodes that stay in fp32; the runtime has no use for them.
void check_pinned(const Spot &spot) {
    for (const Spot &item : spot.items()) {
        Members members(item, {"node!", "why!"});
        while (members.next()) members.value().text();
    }
}

Precision precision(const Spot &spot) {
    Precision made;
    Members members(spot, {"kind", "pinned", "emulated"});
    while (members.next()) {
        const Spot value = members.value();
        if (members.is("kind")) made.kind = value.one_of({"fp32", "fp16", "bf16"});
        if (members.is("pinned")) check_pinned(value);
        if (members.is("emulated")) made.emulated = value.maybe_text();
    }
    return made;
}

Network network(const Spot &spot, const char *expected = "object") {
    Network made;
    Members members(
        spot, {"path!", "inputs!", "outputs!", "data", "config", "axes", "channel_axis", "precision"}, expected);
    while (members.next()) {
        const Spot value = members.value();
        if (members.is("path")) made.path = value.text();
        if (members.is("inputs")) made.inputs = tensors(value);
        if (members.is("outputs")) made.outputs = tensors(value);
        if (members.is("config")) made.config = value.maybe_text();
        if (members.is("channel_axis")) made.channel_axis = value.at_least(1);
        if (members.is("precision")) made.precision = precision(value);
        if (members.is("data")) {
            for (const Spot &item : value.items()) made.data.push_back(item.text());
        }
        if (members.is("axes")) {
            for (const Spot &item : value.values()) made.axes.push_back(axis(item));
            for (std::size_t k = 0; k < made.axes.size(); ++k) made.axes[k].name = value.json->keys()[k];
        }
    }
    return made;
}

std::optional<Network> maybe_network(const Spot &spot) {
    if (spot.null()) return std::nullopt;
    return network(spot, "object | null");
}

std::vector<FileRecord> files(const Spot &spot) {
    std::vector<FileRecord> made;
    for (const Spot &item : spot.values()) {
        FileRecord record;
        record.name = spot.json->keys()[made.size()];
        Members members(item, {"bytes!", "sha256!"});
        while (members.next()) {
            if (members.is("bytes")) record.bytes = members.value().at_least(0);
            if (members.is("sha256")) record.sha256 = hash(members.value());
        }
        made.push_back(std::move(record));
    }
    return made;
}

std::optional<Guidance> guidance(const Spot &spot) {
    if (spot.null()) return std::nullopt;
    Guidance made;
    Members members(spot, {"kind!", "classes!", "null_label!", "scale"}, "object | null");
    while (members.next()) {
        const Spot value = members.value();
        if (members.is("kind")) value.one_of({"classifier_free"});
        if (members.is("classes")) made.classes = value.whole();
        if (members.is("null_label")) made.null_label = value.whole();
        if (members.is("scale")) made.scale = value.real();
    }
    return made;
}

// Values that mean something to Python alone: numbers, texts or what else is said to be allowed.
void check_plain(const Spot &spot, const char *expected, bool logical) {
    for (const Spot &item : spot.values()) {
        const Json &json = *item.json;
        const bool small = item.null() || json.is(Json::Kind::boolean);
        if (json.is(Json::Kind::list) || json.is(Json::Kind::object) || (small && !logical)) item.unexpected(expected);
        if (json.is(Json::Kind::number) && !json.whole()) item.real();
    }
}

void defaults(const Spot &spot, Manifest &made) {
    Members members(spot, {"steps", "solver", "options"});
    while (members.next()) {
        const Spot value = members.value();
        if (members.is("steps")) made.steps = value.whole();
        if (members.is("solver")) value.maybe_text();
        if (members.is("options")) check_plain(value, "bool | int | float | str | null", true);
    }
}

void data_range(const Spot &spot, double (&into)[2]) {
    const std::vector<Spot> items = spot.items();
    for (std::size_t k = 0; k < std::min<std::size_t>(items.size(), 2); ++k) into[k] = items[k].real();
    if (items.size() != 2) spot.refuse("Expected `array` of length 2");
}

Json parse(std::string_view raw) {
    try {
        return Json::parse(raw);
    } catch (const JsonError &error) {
        fail(DPMRT_ERROR_FORMAT, "dpmrt.json is not JSON",
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
        fail(DPMRT_ERROR_FORMAT, "dpmrt.json: `format` is not dpmrt's",
             head.is(Kind::object) ? python(format) : quoted(kind), "'dpmrt-bundle'", kMend);
    }
    const Json *version = head.find("version");
    const bool known = version != nullptr && version->whole() &&
                       std::any_of(std::begin(kVersions), std::end(kVersions), [&](std::int64_t one) {
                           return version->text() == std::to_string(one);
                       });
    if (!known) {
        fail(DPMRT_ERROR_VERSION, "dpmrt.json: unknown `version`", python(version), "1 or 2 or 3",
             "update dpmrt, or export the network again with this version");
    }
}

}  // namespace

Manifest decode_manifest(std::string_view raw) {
    const Json head = parse(raw);
    check_head(head);
    const Spot whole(head, "$");
    Manifest made;
    Members members(whole, {"format!", "version!", "name!", "unet!", "scheduler!", "prediction!", "files!", "guidance",
                            "data_range", "defaults", "provenance", "classifier", "eps_power", "vjp"});
    while (members.next()) {
        const Spot value = members.value();
        if (members.is("name")) made.name = value.text();
        if (members.is("unet")) made.unet = network(value);
        if (members.is("scheduler")) made.scheduler = value.text();
        if (members.is("prediction")) {
            made.prediction = value.one_of({"epsilon", "sample", "v_prediction", "flow", "score", "edm"});
        }
        if (members.is("files")) made.files = files(value);
        if (members.is("guidance")) made.guidance = guidance(value);
        if (members.is("data_range")) data_range(value, made.data_range);
        if (members.is("defaults")) defaults(value, made);
        if (members.is("provenance")) check_plain(value, "int | float | str", false);
        if (members.is("classifier")) made.classifier = maybe_network(value);
        if (members.is("eps_power")) made.eps_power = value.maybe_text();
        if (members.is("vjp")) made.vjp = maybe_network(value);
    }
    return made;
}

}  // namespace dpmrt_core
