#include "typed.h"

#include <algorithm>
#include <charconv>
#include <cmath>

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

std::int64_t whole(const Json &value, const std::string &path, const char *expected) {
    if (!value.whole()) refuse_type(expected, value, path);
    std::int64_t number = 0;
    const std::string &digits = value.text();
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (parsed.ec != std::errc{}) refuse_value("Number out of range", path);
    return number;
}

}  // namespace

void refuse_value(const std::string &what, const std::string &path) {
    throw Failure(DPMRT_ERROR_FORMAT, "dpmrt.json does not follow the schema",
                  path == "$" ? what : what + " - at `" + path + "`", "the fields of version 3", kMend);
}

void refuse_type(const char *expected, const Json &value, const std::string &path) {
    refuse_value(std::string("Expected `") + expected + "`, got `" + type_of(value) + "`", path);
}

void object(const Json &value, const std::string &path, std::initializer_list<Field> fields,
            const char *expected) {
    if (!value.is(Kind::object)) refuse_type(expected, value, path);
    for (std::size_t k = 0; k < value.size(); ++k) {
        const std::string &key = value.keys()[k];
        const auto *field = std::find_if(fields.begin(), fields.end(), [&](const Field &one) { return key == one.name; });
        if (field == fields.end()) refuse_value("Object contains unknown field `" + key + "`", path);
        field->take(value.list()[k], path + "." + key);
    }
    for (const Field &field : fields) {
        if (field.required && value.find(field.name) == nullptr) {
            refuse_value(std::string("Object missing required field `") + field.name + "`", path);
        }
    }
}

Take map_of(const std::function<void(const std::string &, const Json &, const std::string &)> &put) {
    return [put](const Json &value, const std::string &path) {
        if (!value.is(Kind::object)) refuse_type("object", value, path);
        for (std::size_t k = 0; k < value.size(); ++k) put(value.keys()[k], value.list()[k], path + "[...]");
    };
}

std::string text(const Json &value, const std::string &path) {
    if (!value.is(Kind::text)) refuse_type("str", value, path);
    return value.text();
}

Take text_into(std::string &into) {
    return [&into](const Json &value, const std::string &path) { into = text(value, path); };
}

Take maybe_text_into(std::optional<std::string> &into) {
    return [&into](const Json &value, const std::string &path) {
        if (!value.is(Kind::null) && !value.is(Kind::text)) refuse_type("str | null", value, path);
        if (value.is(Kind::text)) into = value.text();
    };
}

Take one_of_into(std::string &into, std::initializer_list<const char *> names) {
    const std::vector<const char *> kept(names);
    return [&into, names = kept](const Json &value, const std::string &path) {
        const std::string given = text(value, path);
        const bool known = std::any_of(names.begin(), names.end(), [&](const char *name) { return given == name; });
        if (!known) refuse_value("Invalid enum value '" + given + "'", path);
        into = given;
    };
}

std::int64_t at_least(std::int64_t least, const Json &value, const std::string &path, const char *expected) {
    const std::int64_t number = whole(value, path, expected);
    if (number < least) refuse_value("Expected `int` >= " + std::to_string(least), path);
    return number;
}

Take whole_into(std::int64_t &into) {
    return [&into](const Json &value, const std::string &path) { into = whole(value, path, "int"); };
}

Take size_into(std::int64_t &into) {
    return [&into](const Json &value, const std::string &path) { into = at_least(1, value, path); };
}

double real(const Json &value, const std::string &path) {
    if (!value.is(Kind::number)) refuse_type("float", value, path);
    if (!std::isfinite(value.number())) refuse_value("Number out of range", path);
    return value.number();
}

std::string matching(const Json &value, const std::string &path, const char *pattern, bool (*fits)(const std::string &)) {
    const std::string given = text(value, path);
    if (!fits(given)) refuse_value(std::string("Expected `str` matching regex '") + pattern + "'", path);
    return given;
}

}  // namespace dpmrt_core
