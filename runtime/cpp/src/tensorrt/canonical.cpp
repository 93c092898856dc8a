#include <algorithm>
#include <numeric>

#include "../failure.h"
#include "sidecar.h"

namespace dpmrt_core {
namespace {

// The code points of UTF-8 that the reader of JSON has made.
std::uint32_t next(const std::string &text, std::size_t &at) {
    const auto byte = [&](std::size_t k) { return static_cast<std::uint32_t>(static_cast<unsigned char>(text[k])); };
    const std::uint32_t first = byte(at++);
    if (first < 0x80) return first;
    const std::size_t more = first < 0xE0 ? 1 : first < 0xF0 ? 2 : 3;
    std::uint32_t code = first & (0x3FU >> more);
    for (std::size_t k = 0; k < more && at < text.size(); ++k) code = code << 6U | (byte(at++) & 0x3FU);
    return code;
}

std::string quoted(const std::string &text) {
    std::string out = "\"";
    for (std::size_t at = 0; at < text.size();) {
        const std::uint32_t code = next(text, at);
        const char *const short_form = code == '"' ? "\\\"" : code == '\\' ? "\\\\" : code == '\n' ? "\\n" : code == '\r' ? "\\r"
                                       : code == '\t' ? "\\t" : code == '\b' ? "\\b" : code == '\f' ? "\\f" : nullptr;
        if (short_form != nullptr) {
            out += short_form;
        } else if (code >= 0x20 && code < 0x7F) {
            out += static_cast<char>(code);
        } else if (code < 0x10000) {
            out += format("\\u%04x", code);
        } else {
            out += format("\\u%04x\\u%04x", 0xD800 + ((code - 0x10000) >> 10U), 0xDC00 + ((code - 0x10000) & 0x3FFU));
        }
    }
    return out + "\"";
}

}  // namespace

std::string canonical(const Json &value) {
    switch (value.kind()) {
        case Json::Kind::null: return "null";
        case Json::Kind::boolean: return value.boolean() ? "true" : "false";
        case Json::Kind::number: return value.text();
        case Json::Kind::text: return quoted(value.text());
        case Json::Kind::list: break;
        case Json::Kind::object: break;
    }
    const bool object = value.is(Json::Kind::object);
    std::vector<std::size_t> order(value.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    if (object) {
        std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return value.keys()[a] < value.keys()[b]; });
    }
    std::string out = object ? "{" : "[";
    for (const std::size_t k : order) {
        if (out.size() > 1) out += ',';
        if (object) out += quoted(value.keys()[k]) + ":";
        out += canonical(value.list()[k]);
    }
    return out + (object ? "}" : "]");
}

}  // namespace dpmrt_core
