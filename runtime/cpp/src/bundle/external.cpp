// Every tensor counts: those of the graph, of nodes, of nested graphs and of functions. All else is skipped by length.
#include "external.h"

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <istream>
#include <vector>

#include "../json.h"
#include "text.h"

namespace dpmrt_core {
namespace {

enum class Message { model, graph, function, node, attribute, sparse, tensor, external_data };

struct Below {
    Message above;
    std::uint64_t number;
    Message kind;
};

// The fields of onnx.proto that lead to a tensor, message by message.
constexpr Below kBelow[] = {
    {Message::model, 7, Message::graph},        {Message::model, 25, Message::function},    {Message::graph, 1, Message::node},
    {Message::graph, 5, Message::tensor},       {Message::graph, 15, Message::sparse},      {Message::function, 7, Message::node},
    {Message::function, 11, Message::attribute}, {Message::node, 5, Message::attribute},    {Message::attribute, 5, Message::tensor},
    {Message::attribute, 6, Message::graph},    {Message::attribute, 10, Message::tensor},  {Message::attribute, 11, Message::graph},
    {Message::attribute, 22, Message::sparse},  {Message::attribute, 23, Message::sparse},  {Message::sparse, 1, Message::tensor},
    {Message::sparse, 2, Message::tensor},      {Message::tensor, 13, Message::external_data}};

constexpr char kTruncated[] = "the file is truncated or is no protobuf message";

// A stream read through a window, so that what is skipped is never read.
class Window {
public:
    explicit Window(std::istream &stream) : stream_(stream), bytes_(1U << 14U) {
        stream_.seekg(0, std::ios::end);
        const auto end = stream_.tellg();
        size_ = end < 0 ? 0 : static_cast<std::uint64_t>(end);
    }

    std::uint64_t size() const { return size_; }

    std::uint8_t at(std::uint64_t position) {
        if (position < first_ || position - first_ >= held_) load(position);
        return static_cast<std::uint8_t>(bytes_[static_cast<std::size_t>(position - first_)]);
    }

private:
    void load(std::uint64_t position) {
        stream_.clear();
        stream_.seekg(static_cast<std::streamoff>(position));
        stream_.read(bytes_.data(), static_cast<std::streamsize>(bytes_.size()));
        first_ = position;
        held_ = static_cast<std::uint64_t>(stream_.gcount());
        if (held_ == 0) throw OnnxError{kTruncated};
    }

    std::istream &stream_;
    std::vector<char> bytes_;
    std::uint64_t size_ = 0;
    std::uint64_t first_ = 0;
    std::uint64_t held_ = 0;
};

class Scanner {
public:
    explicit Scanner(std::istream &stream) : window_(stream) {}

    std::vector<std::string> scan() {
        if (window_.size() == 0) throw OnnxError{"an empty file"};
        std::vector<Open> open{{Message::model, 0, window_.size()}};
        while (!open.empty()) {
            Open &message = open.back();
            if (message.at == message.end) {
                close(message);
                open.pop_back();
                continue;
            }
            const Span field = next(message);
            if (message.kind == Message::external_data) {
                if (field.number == 1) message.key = field;
                if (field.number == 2) message.value = field;
                continue;
            }
            for (const Below &below : kBelow) {
                if (below.above != message.kind || below.number != field.number) continue;
                open.push_back({below.kind, field.begin, field.end});
                break;
            }
        }
        if (!graph_) throw OnnxError{"no graph in the file"};
        return sorted(std::move(found_));
    }

private:
    struct Span {
        std::uint64_t number = 0;  // 0 for a field without a length
        std::uint64_t begin = 0;
        std::uint64_t end = 0;
    };

    struct Open {
        Message kind;
        std::uint64_t at;
        std::uint64_t end;
        Span key{}, value{};
    };

    std::uint64_t varint(Open &message) {
        std::uint64_t result = 0;
        for (unsigned shift = 0; shift < 70 && message.at < message.end; shift += 7) {
            const std::uint64_t byte = window_.at(message.at++);
            if (shift == 63 && byte > 1) break;
            result |= (byte & 0x7FU) << shift;
            if (byte < 0x80) return result;
        }
        throw OnnxError{"a protobuf number is cut off or too long"};
    }

    void skip(Open &message, std::uint64_t length) const {
        if (length > message.end - message.at) throw OnnxError{kTruncated};
        message.at += length;
    }

    Span next(Open &message) {
        const std::uint64_t key = varint(message);
        switch (key & 7U) {
            case 0: varint(message); return {};
            case 1: skip(message, 8); return {};
            case 5: skip(message, 4); return {};
            case 2: break;
            default: throw OnnxError{"unknown protobuf wire type " + decimal(static_cast<std::int64_t>(key & 7U))};
        }
        const std::uint64_t length = varint(message);
        const std::uint64_t begin = message.at;
        skip(message, length);
        return {key >> 3U, begin, begin + length};
    }

    void close(const Open &message) {
        if (message.kind == Message::graph) graph_ = true;
        if (message.kind != Message::external_data || bytes(message.key) != "location") return;
        std::string location = bytes(message.value);
        if (!is_utf8(location)) throw OnnxError{"a location that is not UTF-8"};
        found_.push_back(std::move(location));
    }

    std::string bytes(const Span &span) {
        constexpr std::uint64_t kLongest = 1U << 16U;
        if (span.end - span.begin > kLongest) throw OnnxError{"a location that is too long"};
        std::string text;
        for (std::uint64_t at = span.begin; at < span.end; ++at) text += static_cast<char>(window_.at(at));
        return text;
    }

    Window window_;
    bool graph_ = false;
    std::vector<std::string> found_;
};

}  // namespace

std::vector<std::string> external_locations(std::istream &stream) { return Scanner(stream).scan(); }

std::vector<std::string> external_locations(const std::string &path) {
    std::ifstream stream(std::filesystem::u8path(path), std::ios::binary);
    return external_locations(stream);
}

}  // namespace dpmrt_core
