#include "json.h"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <system_error>

namespace dpmrt_core {

class JsonReader {
public:
    JsonReader(std::string_view text, bool lax) : text_(text), lax_(lax) {}

    Json document() {
        if (!is_utf8(text_)) fail("bytes that are not UTF-8");
        Json value = read(0);
        space();
        if (at_ != text_.size()) fail("something after the value");
        return value;
    }

private:
    static constexpr int kDeepest = 64;
    // each is compared with the others
    static constexpr std::size_t kMostKeys = 4096;

    [[noreturn]] void fail(const char *what) const { throw JsonError{what, at_}; }

    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

    void space() {
        while (at_ < text_.size() && std::strchr(" \t\r\n", text_[at_]) != nullptr && text_[at_] != '\0') ++at_;
    }

    void expect(char wanted, const char *what) {
        if (at_ >= text_.size() || text_[at_] != wanted) fail(what);
        ++at_;
    }

    Json read(int depth) {
        if (depth > kDeepest) fail("nested too deeply");
        space();
        Json value;
        switch (peek()) {
            case '{': object(value, depth); break;
            case '[': list(value, depth); break;
            case '"':
                value.kind_ = Json::Kind::text;
                value.text_ = string();
                break;
            case 't': word("true", value, Json::Kind::boolean, 1); break;
            case 'f': word("false", value, Json::Kind::boolean, 0); break;
            case 'n': word("null", value, Json::Kind::null, 0); break;
            default: number(value);
        }
        return value;
    }

    void word(std::string_view word, Json &value, Json::Kind kind, double number) {
        if (text_.substr(at_, word.size()) != word) fail("no value");
        at_ += word.size();
        value.kind_ = kind;
        value.number_ = number;
    }

    void object(Json &value, int depth) {
        value.kind_ = Json::Kind::object;
        ++at_;
        space();
        if (peek() == '}') {
            ++at_;
            return;
        }
        for (;;) {
            space();
            if (peek() != '"') fail("no key");
            if (value.keys_.size() == kMostKeys) fail("too many keys");
            value.keys_.push_back(string());
            space();
            expect(':', "no colon after a key");
            value.items_.push_back(read(depth + 1));
            space();
            if (peek() == '}') break;
            expect(',', "no comma between members");
        }
        ++at_;
        for (std::size_t k = 0; k < value.keys_.size(); ++k) {
            if (value.find(value.keys_[k]) != &value.items_[k]) fail("a key that stands twice");
        }
    }

    void list(Json &value, int depth) {
        value.kind_ = Json::Kind::list;
        ++at_;
        space();
        if (peek() == ']') {
            ++at_;
            return;
        }
        for (;;) {
            value.items_.push_back(read(depth + 1));
            space();
            if (peek() == ']') break;
            expect(',', "no comma between values");
        }
        ++at_;
    }

    bool special(Json &value) {
        constexpr struct {
            std::string_view word;
            double number;
        } kSpecial[] = {{"NaN", std::numeric_limits<double>::quiet_NaN()}, {"Infinity", HUGE_VAL}, {"-Infinity", -HUGE_VAL}};
        for (const auto &one : kSpecial) {
            if (text_.substr(at_, one.word.size()) != one.word) continue;
            word(one.word, value, Json::Kind::number, one.number);
            value.text_ = one.word;
            return true;
        }
        return false;
    }

    void number(Json &value) {
        if (lax_ && special(value)) return;
        const std::size_t begin = at_;
        if (peek() == '-') ++at_;
        if (peek() == '0') {
            ++at_;
        } else {
            digits("no value");
        }
        if (peek() == '.') {
            ++at_;
            digits("no digits after the point");
        }
        if (peek() == 'e' || peek() == 'E') {
            ++at_;
            if (peek() == '+' || peek() == '-') ++at_;
            digits("no digits in the exponent");
        }
        value.kind_ = Json::Kind::number;
        value.text_ = std::string(text_.substr(begin, at_ - begin));
        const auto parsed = std::from_chars(text_.data() + begin, text_.data() + at_, value.number_);
        if (parsed.ec == std::errc::result_out_of_range) {
            value.number_ = beyond(value.text_);
        } else if (parsed.ec != std::errc{}) {
            fail("no number");
        }
    }

    // What a number is that no double holds: infinite, or too near to zero.
    static double beyond(const std::string &text) {
        const std::size_t digit = text.find_first_of("123456789");
        const std::size_t mark = text.find_first_of("eE");
        const bool shrinks = mark != std::string::npos ? text[mark + 1] == '-' : text.find('.') < digit;
        const double size = shrinks ? 0.0 : HUGE_VAL;
        return text[0] == '-' ? -size : size;
    }

    void digits(const char *what) {
        const std::size_t begin = at_;
        while (peek() >= '0' && peek() <= '9') ++at_;
        if (at_ == begin) fail(what);
    }

    std::string string() {
        std::string result;
        ++at_;
        for (;;) {
            if (at_ >= text_.size()) fail("a text without an end");
            const char c = text_[at_++];
            if (c == '"') return result;
            if (static_cast<unsigned char>(c) < 0x20) fail("a control character in a text");
            if (c != '\\') {
                result += c;
                continue;
            }
            escape(result);
        }
    }

    void escape(std::string &result) {
        const char c = peek();
        ++at_;
        switch (c) {
            case '"': case '\\': case '/': result += c; return;
            case 'b': result += '\b'; return;
            case 'f': result += '\f'; return;
            case 'n': result += '\n'; return;
            case 'r': result += '\r'; return;
            case 't': result += '\t'; return;
            case 'u': break;
            default: fail("an unknown escape");
        }
        std::uint32_t code = hex();
        if (code >= 0xD800 && code < 0xDC00) {
            if (text_.substr(at_, 2) != "\\u") fail("half a surrogate pair");
            at_ += 2;
            const std::uint32_t low = hex();
            if (low < 0xDC00 || low > 0xDFFF) fail("half a surrogate pair");
            code = 0x10000 + ((code - 0xD800) << 10U) + (low - 0xDC00);
        } else if (code >= 0xDC00 && code < 0xE000) {
            fail("half a surrogate pair");
        }
        encode(code, result);
    }

    std::uint32_t hex() {
        std::uint32_t code = 0;
        if (text_.size() - at_ < 4) fail("an escape without its digits");
        const auto parsed = std::from_chars(text_.data() + at_, text_.data() + at_ + 4, code, 16);
        if (parsed.ptr != text_.data() + at_ + 4) fail("an escape without its digits");
        at_ += 4;
        return code;
    }

    static void encode(std::uint32_t code, std::string &result) {
        const auto add = [&result](std::uint32_t byte) { result += static_cast<char>(byte); };
        if (code < 0x80) {
            add(code);
        } else if (code < 0x800) {
            add(0xC0U | code >> 6U);
            add(0x80U | (code & 0x3FU));
        } else if (code < 0x10000) {
            add(0xE0U | code >> 12U);
            add(0x80U | (code >> 6U & 0x3FU));
            add(0x80U | (code & 0x3FU));
        } else {
            add(0xF0U | code >> 18U);
            add(0x80U | (code >> 12U & 0x3FU));
            add(0x80U | (code >> 6U & 0x3FU));
            add(0x80U | (code & 0x3FU));
        }
    }

    std::string_view text_;
    bool lax_;
    std::size_t at_ = 0;
};

bool is_utf8(std::string_view bytes) {
    for (std::size_t at = 0; at < bytes.size();) {
        const auto first = static_cast<unsigned char>(bytes[at++]);
        if (first < 0x80) continue;
        const int rest = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
        if (first < 0xC2 || first > 0xF4) return false;
        std::uint32_t code = first & (0x3FU >> static_cast<unsigned>(rest));
        for (int k = 0; k < rest; ++k) {
            const auto next = at < bytes.size() ? static_cast<unsigned char>(bytes[at++]) : 0U;
            if ((next & 0xC0U) != 0x80U) return false;
            code = code << 6U | (next & 0x3FU);
        }
        constexpr std::uint32_t kLeast[] = {0, 0x80, 0x800, 0x10000};
        if (code < kLeast[rest] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return false;
    }
    return true;
}

Json Json::parse(std::string_view text, bool lax) { return JsonReader(text, lax).document(); }

const Json *Json::find(std::string_view key) const {
    for (std::size_t k = 0; k < keys_.size(); ++k) {
        if (keys_[k] == key) return &items_[k];
    }
    return nullptr;
}

const char *Json::name() const {
    switch (kind_) {
        case Kind::null: return "null";
        case Kind::boolean: return "a truth value";
        case Kind::number: return "a number";
        case Kind::text: return "a text";
        case Kind::list: return "a list";
        case Kind::object: return "an object";
    }
    return "nothing";
}

}  // namespace dpmrt_core
