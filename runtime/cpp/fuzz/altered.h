// What stands for libFuzzer where there is none: each file of a folder, and as many altered, cut and joined from it as are
// asked for, always the same ones.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size);

namespace altered {

using Bytes = std::vector<std::uint8_t>;

inline Bytes alter(const Bytes &one, const Bytes &other, std::mt19937 &random) {
    const auto below = [&random](std::size_t end) { return end == 0 ? 0 : static_cast<std::size_t>(random()) % end; };
    const auto at = [](std::size_t k) { return static_cast<std::ptrdiff_t>(k); };
    Bytes made = one;
    for (std::size_t times = 1 + below(4); times > 0 && !made.empty(); --times) {
        const std::size_t place = below(made.size());
        switch (below(5)) {
            case 0: made[place] = static_cast<std::uint8_t>(random()); break;
            case 1: made[place] ^= static_cast<std::uint8_t>(1U << below(8)); break;
            case 2: made.erase(made.begin() + at(place), made.begin() + at(place + below(made.size() - place))); break;
            case 3: {
                const std::size_t from = below(other.size());
                const std::size_t size = below(std::min<std::size_t>(64, other.size() - from));
                made.insert(made.begin() + at(place), other.begin() + at(from), other.begin() + at(from + size));
                break;
            }
            default: made.resize(place); break;
        }
    }
    return made;
}

// argv: a folder, and how often each file is altered.
inline int folder(int argc, char **argv) {
    if (argc != 3) {
        std::fprintf(stderr, "usage: %s CORPUS TIMES\n", argv[0]);
        return 2;
    }
    std::vector<std::filesystem::path> paths;
    for (const auto &entry : std::filesystem::directory_iterator(argv[1])) paths.push_back(entry.path());
    std::sort(paths.begin(), paths.end());
    std::vector<Bytes> corpus;
    for (const auto &path : paths) {
        std::ifstream stream(path, std::ios::binary);
        corpus.emplace_back(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
    }
    std::mt19937 random(1);
    std::size_t inputs = 0;
    for (const Bytes &one : corpus) {
        LLVMFuzzerTestOneInput(one.data(), one.size());
        ++inputs;
        for (long times = std::strtol(argv[2], nullptr, 10); times > 0; --times, ++inputs) {
            const Bytes made = alter(one, corpus[random() % corpus.size()], random);
            LLVMFuzzerTestOneInput(made.data(), made.size());
        }
    }
    std::printf("%zu inputs\n", inputs);
    return corpus.empty() ? 1 : 0;
}

}  // namespace altered
