// A strict reader of JSON (RFC 8259), for headers and manifests: no comments, no trailing commas, bounded depth.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dpmrt_core {

class Json {
public:
    enum class Kind { null, boolean, number, text, list, object };

    // Reads a whole document; throws JsonError. Python writes numbers that JSON does not have, as -Infinity: `lax` takes them.
    static Json parse(std::string_view text, bool lax = false);

    Kind kind() const { return kind_; }
    bool is(Kind kind) const { return kind_ == kind; }
    bool boolean() const { return number_ != 0; }
    // Infinite where the number is beyond what a double holds.
    double number() const { return number_; }
    // A text, or a number as it is written.
    const std::string &text() const { return text_; }
    // Whether a number is written as a whole one.
    bool whole() const { return is(Kind::number) && text_.find_first_not_of("-0123456789") == std::string::npos; }
    const std::vector<Json> &list() const { return items_; }
    std::size_t size() const { return items_.size(); }
    // The keys of an object, in the order of list().
    const std::vector<std::string> &keys() const { return keys_; }
    // The value of a key, or NULL where the object has none or this is no object.
    const Json *find(std::string_view key) const;
    // What kind of value this is, for an error.
    const char *name() const;

private:
    friend class JsonReader;

    Kind kind_ = Kind::null;
    double number_ = 0;
    std::string text_;
    std::vector<Json> items_;
    std::vector<std::string> keys_;
};

bool is_utf8(std::string_view bytes);

// What is wrong with a document, and where.
struct JsonError {
    std::string what;
    std::size_t offset;
};

}  // namespace dpmrt_core
