// SHA-256 (FIPS 180-4), for the checksums of step files and bundles.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace dpmrt_core {

class Sha256 {
public:
    using Digest = std::array<std::uint8_t, 32>;

    void update(const void *data, std::size_t size);
    // Ends the message; the object is used up.
    Digest digest();

    static Digest of(const void *data, std::size_t size);
    static std::string hex(const Digest &digest);

private:
    void block(const std::uint8_t *data);

    std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<std::uint8_t, 64> pending_{};
    std::size_t held_ = 0;
    std::uint64_t length_ = 0;
};

}  // namespace dpmrt_core
