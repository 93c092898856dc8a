#include "typed.h"

#include <charconv>
#include <cmath>
#include <string_view>

#include "../failure.h"

namespace dpmrt_core {
namespace {

using Kind = Json::Kind;

const char *type_of(const Json &value) {
    switch (value.kind()) {
        case Kind::null: return "null";
        case Kind::boolean: return "bool";
        case Kind::number: return value.whole() ? "int" : "float";
        case Kind::text: return "str";
        case Kind::list: return "array";
        case Kind::object: return "object";
    }
    return "nothing";
}

std::string_view without_mark(const char *name) {
    const std::string_view whole = name;
    return whole.substr(0, whole.find('!'));
}

}  // namespace

void Spot::refuse(std::string_view what) const {
    std::string got(what);
    if (path != "$") got.append(" - at `").append(path).append("`");
    fail(DPMRT_ERROR_FORMAT, "dpmrt.json does not follow the schema", got, "the fields of version 3", kMend);
}

void Spot::unexpected(const char *expected) const { refuse(format("Expected `%s`, got `%s`", expected, type_of(*json))); }

const std::string &Spot::text() const {
    if (!json->is(Kind::text)) unexpected("str");
    return json->text();
}

std::optional<std::string> Spot::maybe_text() const {
    if (null()) return std::nullopt;
    if (!json->is(Kind::text)) unexpected("str | null");
    return json->text();
}

const std::string &Spot::one_of(std::initializer_list<const char *> names) const {
    const std::string &given = text();
    for (const char *name : names) {
        if (given == name) return given;
    }
    refuse("Invalid enum value '" + given + "'");
}

std::int64_t Spot::whole(const char *expected) const {
    if (!json->whole()) unexpected(expected);
    std::int64_t number = 0;
    const std::string &digits = json->text();
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (parsed.ec != std::errc{}) refuse("Number out of range");
    return number;
}

std::int64_t Spot::at_least(std::int64_t least, const char *expected) const {
    const std::int64_t number = whole(expected);
    if (number < least) refuse(format("Expected `int` >= %d", static_cast<int>(least)));
    return number;
}

double Spot::real() const {
    if (!json->is(Kind::number)) unexpected("float");
    if (!std::isfinite(json->number())) refuse("Number out of range");
    return json->number();
}

std::vector<Spot> Spot::items() const {
    if (!json->is(Kind::list)) unexpected("array");
    std::vector<Spot> found;
    for (std::size_t k = 0; k < json->size(); ++k) found.emplace_back(json->list()[k], path + format("[%zu]", k));
    return found;
}

std::vector<Spot> Spot::values() const {
    if (!json->is(Kind::object)) unexpected("object");
    std::vector<Spot> found;
    for (const Json &value : json->list()) found.emplace_back(value, path + "[...]");
    return found;
}

Members::Members(const Spot &object, std::initializer_list<const char *> names, const char *expected)
    : object_(object), names_(names) {
    if (!object.json->is(Kind::object)) object.unexpected(expected);
}

bool Members::next() {
    const Json &json = *object_.json;
    if (at_ == json.size()) {
        for (const char *name : names_) {
            const std::string_view plain = without_mark(name);
            if (name[plain.size()] == '!' && json.find(plain) == nullptr) {
                object_.refuse(format("Object missing required field `%.*s`", static_cast<int>(plain.size()), name));
            }
        }
        return false;
    }
    key_ = &json.keys()[at_++];
    for (const char *name : names_) {
        if (without_mark(name) == *key_) return true;
    }
    object_.refuse("Object contains unknown field `" + *key_ + "`");
}

Spot Members::value() const { return {object_.json->list()[at_ - 1], object_.path + "." + *key_}; }

}  // namespace dpmrt_core
