// Values of a JSON document by their types, refused in the words of Python's reader where they are of others.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../json.h"

namespace dpmrt_core {

constexpr char kMend[] = "export the network again, or mend the field by hand";

// A value, and where it stands, for errors.
struct Spot {
    const Json *json;
    std::string path;

    Spot(const Json &value, std::string where) : json(&value), path(std::move(where)) {}

    [[noreturn]] void refuse(std::string_view what) const;
    [[noreturn]] void unexpected(const char *expected) const;

    bool null() const { return json->is(Json::Kind::null); }
    const std::string &text() const;
    std::optional<std::string> maybe_text() const;
    const std::string &one_of(std::initializer_list<const char *> names) const;
    std::int64_t whole(const char *expected = "int") const;
    std::int64_t at_least(std::int64_t least, const char *expected = "int") const;
    double real() const;
    // The items of a list, or the values of an object whose keys are free.
    std::vector<Spot> items() const;
    std::vector<Spot> values() const;
};

// The members of an object in the order of the document; one that is not known is refused, and one that lacks.
class Members {
public:
    // Of the names, those that end with "!" are required.
    Members(const Spot &object, std::initializer_list<const char *> names, const char *expected = "object");

    bool next();
    bool is(const char *name) const { return *key_ == name; }
    Spot value() const;

private:
    const Spot &object_;
    std::vector<const char *> names_;
    std::size_t at_ = 0;
    const std::string *key_ = nullptr;
};

}  // namespace dpmrt_core
