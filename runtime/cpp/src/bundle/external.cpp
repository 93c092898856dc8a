// Every tensor counts: those of the graph, of nodes, of nested graphs and of functions. All else is skipped by length.
#include "external.h"

#include <cstdint>
#include <cstring>
#include <vector>

#include "../json.h"

namespace dpmrt_core {
namespace {

enum class Kind { model, graph, function, node, attribute, sparse, tensor, external_data };

struct Below {
    Kind above;
    std::uint64_t number;
    Kind kind;
};

// The fields of onnx.proto that lead to a tensor, message by message.
constexpr Below kBelow[] = {
    {Kind::model, 7, Kind::graph},        {Kind::model, 25, Kind::function},    {Kind::graph, 1, Kind::node},
    {Kind::graph, 5, Kind::tensor},       {Kind::graph, 15, Kind::sparse},      {Kind::function, 7, Kind::node},
    {Kind::function, 11, Kind::attribute}, {Kind::node, 5, Kind::attribute},    {Kind::attribute, 5, Kind::tensor},
    {Kind::attribute, 6, Kind::graph},    {Kind::attribute, 10, Kind::tensor},  {Kind::attribute, 11, Kind::graph},
    {Kind::attribute, 22, Kind::sparse},  {Kind::attribute, 23, Kind::sparse},  {Kind::sparse, 1, Kind::tensor},
    {Kind::sparse, 2, Kind::tensor},      {Kind::tensor, 13, Kind::external_data}};

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

    std::set<std::string> scan() {
        if (window_.size() == 0) throw OnnxError{"an empty file"};
        std::vector<Message> open{{Kind::model, 0, window_.size()}};
        while (!open.empty()) {
            Message &message = open.back();
            if (message.at == message.end) {
                close(message);
                open.pop_back();
                continue;
            }
            const Span field = next(message);
            if (message.kind == Kind::external_data) {
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
        return std::move(found_);
    }

private:
    struct Span {
        std::uint64_t number = 0;  // 0 for a field without a length
        std::uint64_t begin = 0;
        std::uint64_t end = 0;
    };

    struct Message {
        Kind kind;
        std::uint64_t at;
        std::uint64_t end;
        Span key{}, value{};
    };

    std::uint64_t varint(Message &message) {
        std::uint64_t result = 0;
        for (unsigned shift = 0; shift < 70 && message.at < message.end; shift += 7) {
            const std::uint64_t byte = window_.at(message.at++);
            if (shift == 63 && byte > 1) break;
            result |= (byte & 0x7FU) << shift;
            if (byte < 0x80) return result;
        }
        throw OnnxError{"a protobuf number is cut off or too long"};
    }

    void skip(Message &message, std::uint64_t length) const {
        if (length > message.end - message.at) throw OnnxError{kTruncated};
        message.at += length;
    }

    Span next(Message &message) {
        const std::uint64_t key = varint(message);
        switch (key & 7U) {
            case 0: varint(message); return {};
            case 1: skip(message, 8); return {};
            case 5: skip(message, 4); return {};
            case 2: break;
            default: throw OnnxError{"unknown protobuf wire type " + std::to_string(key & 7U)};
        }
        const std::uint64_t length = varint(message);
        const std::uint64_t begin = message.at;
        skip(message, length);
        return {key >> 3U, begin, begin + length};
    }

    void close(const Message &message) {
        if (message.kind == Kind::graph) graph_ = true;
        if (message.kind != Kind::external_data || bytes(message.key) != "location") return;
        std::string location = bytes(message.value);
        if (!is_utf8(location)) throw OnnxError{"a location that is not UTF-8"};
        found_.insert(std::move(location));
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
    std::set<std::string> found_;
};

}  // namespace

std::set<std::string> external_locations(std::istream &stream) { return Scanner(stream).scan(); }

}  // namespace dpmrt_core
