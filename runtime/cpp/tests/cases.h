// Trajectories that Python wrote, and small tools of the tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "dpmrt/dpmrt.h"

#define REQUIRE(condition)                                                                        \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);          \
            std::exit(1);                                                                         \
        }                                                                                         \
    } while (false)

struct Case {
    std::string name;
    std::vector<std::uint8_t> plan;
    std::vector<std::size_t> shape;
    dpmrt_dtype dtype = DPMRT_FLOAT32;
    std::uint64_t seed = 0;
    std::vector<double> x_T, noise, expected;  // of float32 too, which doubles hold exactly

    std::size_t size() const { return expected.size(); }

    dpmrt_session_params params() const {
        dpmrt_session_params made = dpmrt_session_default_params();
        made.rank = shape.size();
        std::copy(shape.begin(), shape.end(), made.shape);
        made.dtype = dtype;
        return made;
    }

    // The numbers in the case's type.
    std::vector<std::uint8_t> typed(const std::vector<double> &values) const {
        const std::size_t item = dtype == DPMRT_FLOAT32 ? 4 : 8;
        std::vector<std::uint8_t> bytes(values.size() * item);
        for (std::size_t k = 0; k < values.size(); ++k) {
            const auto single = static_cast<float>(values[k]);
            std::memcpy(bytes.data() + k * item, item == 4 ? static_cast<const void *>(&single) : &values[k], item);
        }
        return bytes;
    }

    std::vector<double> wide(const std::vector<std::uint8_t> &bytes) const {
        const std::size_t item = dtype == DPMRT_FLOAT32 ? 4 : 8;
        std::vector<double> values(bytes.size() / item);
        for (std::size_t k = 0; k < values.size(); ++k) {
            float single = 0;
            if (item == 4) {
                std::memcpy(&single, bytes.data() + k * item, item);
                values[k] = static_cast<double>(single);
            } else {
                std::memcpy(&values[k], bytes.data() + k * item, item);
            }
        }
        return values;
    }
};

// Noise that was recorded, handed out draw after draw.
struct Recorded {
    const Case *one;
    std::size_t draw = 0;

    static dpmrt_status give(void *user, void *out, std::size_t count, double, double, dpmrt_error *) {
        auto *self = static_cast<Recorded *>(user);
        const auto begin = self->one->noise.begin() + static_cast<std::ptrdiff_t>(self->draw++ * count);
        const auto bytes = self->one->typed({begin, begin + static_cast<std::ptrdiff_t>(count)});
        std::memcpy(out, bytes.data(), bytes.size());
        return DPMRT_OK;
    }
};

inline std::vector<std::uint8_t> read_file(const std::filesystem::path &path) {
    std::ifstream stream(path, std::ios::binary);
    REQUIRE(stream.good());
    return {std::istreambuf_iterator<char>(stream), {}};
}

class CaseReader {
public:
    explicit CaseReader(const std::filesystem::path &path) : bytes_(read_file(path)) {
        one_.name = path.stem().string();
    }

    Case read() {
        one_.dtype = whole() == 0 ? DPMRT_FLOAT32 : DPMRT_FLOAT64;
        one_.seed = whole();
        one_.shape.resize(whole());
        for (std::size_t &side : one_.shape) side = whole();
        one_.plan.resize(whole());
        take(one_.plan.data(), one_.plan.size());
        one_.x_T = reals();
        one_.noise = reals();
        one_.expected = reals();
        REQUIRE(at_ == bytes_.size());
        return one_;
    }

    void take(void *into, std::size_t size) {
        REQUIRE(size <= bytes_.size() - at_);
        if (size > 0) std::memcpy(into, bytes_.data() + at_, size);
        at_ += size;
    }

    std::uint64_t whole() {
        std::uint64_t value = 0;
        take(&value, sizeof value);
        return value;
    }

    std::vector<double> reals() {
        std::vector<double> values(whole());
        take(values.data(), values.size() * sizeof(double));
        return values;
    }

private:
    std::vector<std::uint8_t> bytes_;
    std::size_t at_ = 0;
    Case one_;
};

inline std::vector<std::filesystem::path> files_of(const char *folder, const char *kind) {
    std::vector<std::filesystem::path> paths;
    for (const auto &entry : std::filesystem::directory_iterator(folder)) {
        if (entry.path().extension() == kind) paths.push_back(entry.path());
    }
    std::sort(paths.begin(), paths.end());
    REQUIRE(!paths.empty());
    return paths;
}

inline std::vector<Case> read_cases(const char *folder) {
    std::vector<Case> cases;
    for (const auto &path : files_of(folder, ".golden")) cases.push_back(CaseReader(path).read());
    return cases;
}

inline void require_ok(dpmrt_status status, const dpmrt_error &error) {
    if (status == DPMRT_OK) return;
    std::fprintf(stderr, "%s: %s\n", dpmrt_status_name(status), error.text);
    std::exit(1);
}

inline dpmrt_plan *plan_of(const Case &one) {
    dpmrt_error error;
    dpmrt_plan *plan = nullptr;
    require_ok(dpmrt_plan_read(one.plan.data(), one.plan.size(), &plan, &error), error);
    return plan;
}

// The largest difference over the size of what was expected.
inline double distance(const std::vector<double> &got, const std::vector<double> &expected) {
    double largest = 0;
    double norm = 0;
    for (std::size_t k = 0; k < expected.size(); ++k) {
        const double gap = std::abs(got[k] - expected[k]);
        largest = std::isfinite(gap) ? std::max(largest, gap) : HUGE_VAL;
        norm += expected[k] * expected[k];
    }
    return largest / std::max(std::sqrt(norm / static_cast<double>(expected.size())), 1e-30);
}
