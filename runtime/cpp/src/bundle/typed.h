// Values of a JSON document by their types, refused in the words of Python's reader where they are of others.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "../json.h"

namespace dpmrt_core {

constexpr char kMend[] = "export the network again, or mend the field by hand";

// How a value is read into its place; the path is for errors.
using Take = std::function<void(const Json &, const std::string &)>;

struct Field {
    const char *name;
    bool required;
    Take take;
};

[[noreturn]] void refuse_value(const std::string &what, const std::string &path);
[[noreturn]] void refuse_type(const char *expected, const Json &value, const std::string &path);

void object(const Json &value, const std::string &path, std::initializer_list<Field> fields,
            const char *expected = "object");

// Values by names that are free.
Take map_of(const std::function<void(const std::string &, const Json &, const std::string &)> &put);

template <class Item, class Read>
Take list_of(std::vector<Item> &into, Read read) {
    return [&into, read](const Json &value, const std::string &path) {
        if (!value.is(Json::Kind::list)) refuse_type("array", value, path);
        for (std::size_t k = 0; k < value.size(); ++k) {
            into.push_back(read(value.list()[k], path + "[" + std::to_string(k) + "]"));
        }
    };
}

std::string text(const Json &value, const std::string &path);
std::int64_t at_least(std::int64_t least, const Json &value, const std::string &path, const char *expected = "int");
double real(const Json &value, const std::string &path);
std::string matching(const Json &value, const std::string &path, const char *pattern, bool (*fits)(const std::string &));

Take text_into(std::string &into);
Take maybe_text_into(std::optional<std::string> &into);
Take one_of_into(std::string &into, std::initializer_list<const char *> names);
Take whole_into(std::int64_t &into);
Take size_into(std::int64_t &into);

}  // namespace dpmrt_core
