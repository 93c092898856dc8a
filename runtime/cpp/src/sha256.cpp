#include "sha256.h"

#include <algorithm>
#include <cstring>

namespace dpmrt_core {
namespace {

// The first 32 bits of the fractional parts of the cube roots of the first 64 primes (FIPS 180-4, 4.2.2).
constexpr std::uint32_t kRound[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

std::uint32_t rotate(std::uint32_t value, unsigned by) { return value >> by | value << (32U - by); }

}  // namespace

void Sha256::update(const void *data, std::size_t size) {
    const auto *bytes = static_cast<const std::uint8_t *>(data);
    length_ += size;
    while (size > 0) {
        if (held_ == 0 && size >= pending_.size()) {
            block(bytes);
            bytes += pending_.size();
            size -= pending_.size();
            continue;
        }
        const std::size_t taken = std::min(size, pending_.size() - held_);
        std::memcpy(pending_.data() + held_, bytes, taken);
        held_ += taken;
        bytes += taken;
        size -= taken;
        if (held_ == pending_.size()) {
            block(pending_.data());
            held_ = 0;
        }
    }
}

Sha256::Digest Sha256::digest() {
    const std::uint64_t bits = length_ * 8;
    const std::uint8_t one = 0x80;
    const std::uint8_t zero = 0;
    update(&one, 1);
    while (held_ != 56) update(&zero, 1);
    std::uint8_t length[8];
    for (unsigned k = 0; k < 8; ++k) length[k] = static_cast<std::uint8_t>(bits >> (56U - 8U * k));
    update(length, sizeof length);
    Digest result{};
    for (std::size_t k = 0; k < result.size(); ++k) {
        result[k] = static_cast<std::uint8_t>(state_[k / 4] >> (24U - 8U * (k % 4)));
    }
    return result;
}

Sha256::Digest Sha256::of(const void *data, std::size_t size) {
    Sha256 hash;
    hash.update(data, size);
    return hash.digest();
}

std::string Sha256::hex(const Digest &digest) {
    static const char digits[] = "0123456789abcdef";
    std::string text;
    for (const std::uint8_t byte : digest) {
        text += digits[byte >> 4U];
        text += digits[byte & 15U];
    }
    return text;
}

void Sha256::block(const std::uint8_t *data) {
    std::uint32_t w[64];
    for (std::size_t k = 0; k < 16; ++k) {
        w[k] = std::uint32_t{data[4 * k]} << 24U | std::uint32_t{data[4 * k + 1]} << 16U |
               std::uint32_t{data[4 * k + 2]} << 8U | std::uint32_t{data[4 * k + 3]};
    }
    for (std::size_t k = 16; k < 64; ++k) {
        const std::uint32_t a = w[k - 15];
        const std::uint32_t b = w[k - 2];
        w[k] = w[k - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3U) + w[k - 7] +
               (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10U);
    }
    auto s = state_;
    for (std::size_t k = 0; k < 64; ++k) {
        const std::uint32_t choice = (s[4] & s[5]) ^ (~s[4] & s[6]);
        const std::uint32_t first =
            s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) + choice + kRound[k] + w[k];
        const std::uint32_t majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
        const std::uint32_t second = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) + majority;
        s = {first + second, s[0], s[1], s[2], s[3] + first, s[4], s[5], s[6]};
    }
    for (std::size_t k = 0; k < 8; ++k) state_[k] += s[k];
}

}  // namespace dpmrt_core
