// The step file: little-endian arrays behind a JSON header, with a checksum at the end. docs/stepfile.md specifies it.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>

#include "failure.h"
#include "json.h"
#include "plan.h"
#include "sha256.h"

namespace dpmrt_core {
namespace {

constexpr char kMagic[] = "DPMSTEPS";
constexpr std::uint32_t kVersion = 2;
constexpr std::size_t kHead = 16;
constexpr std::size_t kCheck = 32;
constexpr std::size_t kAlign = 64;
constexpr std::size_t kMostBytes = std::size_t{1} << 28U;
constexpr std::size_t kMostRows = 1U << 20U;
constexpr char kAgain[] = "save the plan again";

std::uint32_t word(const std::uint8_t *data) {
    return std::uint32_t{data[0]} | std::uint32_t{data[1]} << 8U | std::uint32_t{data[2]} << 16U |
           std::uint32_t{data[3]} << 24U;
}

double real(const std::uint8_t *data) {
    const std::uint64_t bits = std::uint64_t{word(data)} | std::uint64_t{word(data + 4)} << 32U;
    double value = 0;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

class Reader {
public:
    Reader(const void *data, std::size_t size, const std::string &source)
        : data_(static_cast<const std::uint8_t *>(data)), size_(size), source_(source) {}

    Plan read() {
        open();
        Plan plan;
        const Json *arrays = header_.find("arrays");
        if (arrays == nullptr || !arrays->is(Json::Kind::list)) unreadable("no list of arrays");
        const Json *first = arrays->size() > 0 ? &arrays->list()[0] : nullptr;
        if (first == nullptr) unreadable("an empty list of arrays");
        rows_ = dimension(*first, 0);
        if (rows_ == 0 || rows_ > kMostRows) refuse("has no rows, or too many", format("%zu rows", rows_));
        std::size_t next = 0;
        for (const Column &column : columns(plan)) {
            if (next >= arrays->size()) refuse("holds other arrays", format("%zu arrays", arrays->size()));
            take(arrays->list()[next++], column);
        }
        if (next != arrays->size()) refuse("holds other arrays", format("%zu arrays", arrays->size()));
        plan.slots = slots_;
        numbers(plan);
        instructions(plan);
        plan.validate(source_);
        return plan;
    }

private:
    struct Column {
        const char *name;
        bool whole;             // int32, or else float64
        std::size_t trailing;   // 0: none, 2: pairs, kSlots: weights
        std::function<void(const std::uint8_t *, std::size_t)> put;
    };
    static constexpr std::size_t kSlots = 99;

    [[noreturn]] void refuse(std::string_view what, std::string_view got = {}, std::string_view expected = {}) const {
        fail(DPMRT_ERROR_FORMAT, std::string(source_).append(" ").append(what), got, expected, kAgain);
    }

    [[noreturn]] void unreadable(std::string_view got) const {
        refuse("has a header that cannot be read", got, "JSON with a list of arrays");
    }

    void open() {
        if (size_ < 8 || std::memcmp(data_, kMagic, 8) != 0) {
            refuse("is not a step file", size_ < 8 ? format("%zu bytes", size_) : "another beginning", "'DPMSTEPS'");
        }
        if (size_ < kHead + kCheck) {
            refuse("is truncated", format("%zu bytes", size_), format("at least %zu bytes", kHead + kCheck));
        }
        const std::uint32_t version = word(data_ + 8);
        if (version != kVersion) {
            fail(DPMRT_ERROR_VERSION, source_ + " has a version that is not known here",
                 format("%u", version), format("%u", kVersion), kAgain);
        }
        const auto digest = Sha256::of(data_, size_ - kCheck);
        if (std::memcmp(digest.data(), data_ + size_ - kCheck, kCheck) != 0) {
            refuse("is truncated or was altered", "another checksum", "the checksum at its end");
        }
        const std::size_t length = word(data_ + 12);
        if (length > size_ - kHead - kCheck) unreadable(format("a header of %zu bytes", length));
        try {
            header_ = Json::parse({reinterpret_cast<const char *>(data_ + kHead), length});
        } catch (const JsonError &error) {
            unreadable(format("%s, at byte %zu", error.what.c_str(), error.offset));
        }
        at_ = kHead + length;
    }

    std::size_t dimension(const Json &entry, std::size_t axis) const {
        const Json *shape = entry.find("shape");
        if (shape == nullptr || !shape->is(Json::Kind::list) || axis >= shape->size()) unreadable("a shape is missing");
        const double size = shape->list()[axis].number();
        if (!shape->list()[axis].is(Json::Kind::number) || size < 0 || size > 1e9 || size != static_cast<double>(static_cast<std::size_t>(size))) {
            unreadable("a shape is none");
        }
        return static_cast<std::size_t>(size);
    }

    void take(const Json &entry, const Column &column) {
        const Json *name = entry.find("name");
        const Json *dtype = entry.find("dtype");
        if (name == nullptr || dtype == nullptr || name->text() != column.name ||
            dtype->text() != (column.whole ? "<i4" : "<f8")) {
            refuse("holds other arrays", name == nullptr ? "one without a name" : name->text(),
                   format("%s, %s", column.name, column.whole ? "<i4" : "<f8"));
        }
        const std::size_t rank = entry.find("shape") != nullptr ? entry.find("shape")->size() : 0;
        const std::size_t wanted = column.trailing == 0 ? 1 : 2;
        if (rank != wanted || dimension(entry, 0) != rows_) wrong_shape(column);
        std::size_t width = wanted == 2 ? dimension(entry, 1) : 1;
        if (column.trailing == 2 && width != 2) wrong_shape(column);
        if (column.trailing == kSlots) {
            if (width < 1 || width > 4096) wrong_shape(column);
            slots_ = width - 1;
        }
        const std::size_t item = column.whole ? 4 : 8;
        const std::size_t room = size_ - kCheck - at_;
        if (width * rows_ > room / item) {
            refuse(format("has no room for array '%s'", column.name), format("%zu numbers", width * rows_),
                   format("at most %zu bytes", room));
        }
        column.put(data_ + at_, width * rows_);
        const std::size_t bytes = width * rows_ * item;
        at_ += std::min(room, bytes + (kAlign - bytes % kAlign) % kAlign);
    }

    [[noreturn]] void wrong_shape(const Column &column) const {
        refuse(format("has the wrong shape in column '%s'", column.name));
    }

    std::vector<Column> columns(Plan &plan) const {
        const auto reals = [](std::vector<double> &into) {
            return [&into](const std::uint8_t *data, std::size_t count) {
                into.resize(count);
                for (std::size_t k = 0; k < count; ++k) into[k] = real(data + 8 * k);
            };
        };
        const auto wholes = [](std::vector<std::int32_t> &into) {
            return [&into](const std::uint8_t *data, std::size_t count) {
                into.resize(count);
                for (std::size_t k = 0; k < count; ++k) into[k] = static_cast<std::int32_t>(word(data + 4 * k));
            };
        };
        const auto pairs = [](std::vector<Plan::Pair> &into) {
            return [&into](const std::uint8_t *data, std::size_t count) {
                into.resize(count / 2);
                for (std::size_t k = 0; k < into.size(); ++k) into[k] = {real(data + 16 * k), real(data + 16 * k + 8)};
            };
        };
        return {
            {"t", false, 0, reals(plan.t)},
            {"alpha", false, 0, reals(plan.alpha)},
            {"sigma", false, 0, reals(plan.sigma)},
            {"in_scale", false, 0, reals(plan.in_scale)},
            {"out", true, 0, wholes(plan.out)},
            {"quantity", true, 0, wholes(plan.quantity)},
            {"convert", false, 2, pairs(plan.convert)},
            {"instruction", true, 0, wholes(plan.instruction)},
            {"restore", false, 2, pairs(plan.restore)},
            {"keep", true, 0, wholes(plan.keep)},
            {"weights", false, kSlots, reals(plan.weights)},
            {"noise", false, 0, reals(plan.noise)},
            {"noise_instruction", true, 0, wholes(plan.noise_instruction)},
            {"span", false, 2, pairs(plan.span)},
        };
    }

    double number(const Json *value, const char *name) const {
        if (value == nullptr || !value->is(Json::Kind::number) || !std::isfinite(value->number())) {
            refuse(format("has no %s in its header", name), value == nullptr ? "nothing" : value->name(),
                   "plain numbers");
        }
        return value->number();
    }

    Plan::Pair pair(const char *name) const {
        const Json *value = header_.find(name);
        if (value == nullptr || !value->is(Json::Kind::list) || value->size() != 2) {
            refuse(format("has no %s in its header", name), value == nullptr ? "nothing" : value->name(),
                   "plain numbers");
        }
        return {number(&value->list()[0], name), number(&value->list()[1], name)};
    }

    void numbers(Plan &plan) const {
        plan.init_scale = number(header_.find("init_scale"), "init_scale");
        plan.start = pair("start");
        plan.end = pair("end");
        const double parts = number(header_.find("parts"), "parts");
        plan.parts = parts == 1 ? 1 : parts == 2 ? 2 : 0;
    }

    void instructions(Plan &plan) const {
        const Json *listed = header_.find("instructions");
        if (listed == nullptr) return;
        if (!listed->is(Json::Kind::list)) unknown_instruction(*listed);
        for (const Json &entry : listed->list()) plan.instructions.push_back(instruction(entry));
    }

    [[noreturn]] void unknown_instruction(const Json &entry) const {
        const Json *name = entry.find("name");
        fail(DPMRT_ERROR_FORMAT, source_ + " holds an instruction that this version does not know",
             name != nullptr ? name->text() : entry.name(),
             "clip, dynamic_threshold, learned_range, learned_variance, discard or langevin with their numbers",
             "update dpmrt, or save the plan with this version");
    }

    Instruction instruction(const Json &entry) const {
        const Json *name = entry.find("name");
        if (name == nullptr || !name->is(Json::Kind::text)) unknown_instruction(entry);
        const auto field = [&](const char *key) {
            const Json *value = entry.find(key);
            if (value == nullptr || !value->is(Json::Kind::number) || !std::isfinite(value->number())) {
                unknown_instruction(entry);
            }
            return value->number();
        };
        const auto fields = [&](std::size_t count) {
            if (entry.size() != count + 1) unknown_instruction(entry);
        };
        if (name->text() == "clip") {
            fields(1);
            return Clip{field("limit")};
        }
        if (name->text() == "dynamic_threshold") {
            fields(2);
            return DynamicThreshold{field("ratio"), field("limit")};
        }
        if (name->text() == "learned_range") {
            fields(2);
            return LearnedRange{field("log_small"), field("log_large")};
        }
        if (name->text() == "langevin") {
            fields(2);
            const Json *each = entry.find("per_sample");
            if (each == nullptr || !each->is(Json::Kind::boolean)) unknown_instruction(entry);
            return Langevin{field("snr"), each->boolean()};
        }
        if (name->text() == "learned_variance" || name->text() == "discard") {
            fields(0);
            return name->text() == "discard" ? Instruction{Discard{}} : Instruction{LearnedVariance{}};
        }
        unknown_instruction(entry);
    }

    const std::uint8_t *data_;
    std::size_t size_;
    const std::string &source_;
    Json header_;
    std::size_t at_ = 0;
    std::size_t rows_ = 0;
    std::size_t slots_ = 0;
};

}  // namespace

Plan Plan::parse(const void *data, std::size_t size, const std::string &source) {
    return Reader(data, size, source).read();
}

Plan Plan::load(const std::string &path) {
    const auto refuse = [&path](const std::string &got) {
        return Failure(DPMRT_ERROR_FILE, "the step file cannot be read", path + ": " + got, "a file that Python saved");
    };
    const std::unique_ptr<std::FILE, int (*)(std::FILE *)> file(std::fopen(path.c_str(), "rb"), std::fclose);
    if (!file) throw refuse("it cannot be opened");
    std::vector<std::uint8_t> data;
    std::uint8_t buffer[65536];
    for (;;) {
        const std::size_t taken = std::fread(buffer, 1, sizeof buffer, file.get());
        data.insert(data.end(), buffer, buffer + taken);
        if (data.size() > kMostBytes) {
            fail(DPMRT_ERROR_FILE, path + " is too large for a step file", format("more than %zu bytes", kMostBytes));
        }
        if (taken < sizeof buffer) break;
    }
    if (std::ferror(file.get()) != 0) throw refuse("reading failed");
    return parse(data.data(), data.size(), path);
}

}  // namespace dpmrt_core
