#include "text.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "../failure.h"

namespace dpmrt_core {

std::string quoted(const std::string &text) {
    const bool plain = text.find('\'') == std::string::npos || text.find('"') != std::string::npos;
    const char quote = plain ? '\'' : '"';
    std::string result(1, quote);
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == quote || c == '\\') {
            result += '\\';
            result += c;
        } else if (c == '\n' || c == '\r' || c == '\t') {
            result += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
        } else if (byte < 0x20 || byte == 0x7f) {
            result += format("\\x%02x", byte);
        } else {
            result += c;
        }
    }
    return result + quote;
}

std::string shown(double value) {
    if (std::isnan(value)) return "nan";
    if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
    char digits[64];
    const double size = std::abs(value);
    const bool fixed = value == 0 || (size >= 1e-4 && size < 1e16);
    const auto style = fixed ? std::chars_format::fixed : std::chars_format::scientific;
    std::string text(digits, std::to_chars(digits, digits + sizeof digits, value, style).ptr);
    return fixed && text.find('.') == std::string::npos ? text + ".0" : text;
}

std::string decimal(std::int64_t value) { return format("%lld", static_cast<long long>(value)); }

std::vector<std::string> sorted(std::vector<std::string> texts) {
    std::sort(texts.begin(), texts.end());
    texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
    return texts;
}

std::string listed(const std::vector<std::string> &texts, const char *between) {
    std::string result;
    for (const std::string &text : texts) result += (result.empty() ? "" : between) + text;
    return result.empty() ? "none" : result;
}

}  // namespace dpmrt_core
