// Samples as one picture, laid out as Python's `dpmrt sample` does, and written as PNG.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

namespace picture {

struct Image {
    std::size_t height = 0;
    std::size_t width = 0;
    std::size_t channels = 1;
    std::vector<std::uint8_t> pixels;
};

// How samples are laid out: 0 for what is usual.
struct Sheet {
    std::size_t columns = 0;
    std::size_t scale = 0;
};

constexpr std::uint8_t kLine = 96;
constexpr std::size_t kTile = 64;
constexpr std::size_t kMostPixels = 100000000;

// Maps the data's range to 0..255, rounds, and cuts off what lies outside.
inline std::uint8_t to_byte(float value, double low, double high) {
    const double unit = (static_cast<double>(value) - low) / (high - low);
    return static_cast<std::uint8_t>(std::nearbyint(std::min(std::max(unit, 0.0), 1.0) * 255.0));
}

// Lays samples (batch, channels, height, width) out row by row. A grey line as wide as a pixel parts them; cells that are
// left over are black.
inline Image lay_out(const std::vector<float> &samples, const std::array<std::size_t, 4> &shape, double low, double high,
                     Sheet sheet) {
    const auto [batch, channels, height, width] = shape;
    if (channels != 1 && channels != 3) throw std::runtime_error("samples of this shape are no pictures");
    std::size_t columns = sheet.columns;
    while (sheet.columns == 0 && columns * columns < batch) ++columns;
    columns = std::min(columns, batch);
    const std::size_t rows = (batch + columns - 1) / columns;
    const std::size_t side = std::min(height, width);
    const std::size_t scale = sheet.scale != 0 ? sheet.scale : (kTile + side - 1) / side;
    Image image;
    image.channels = channels;
    image.height = (rows * (height + 1) - 1) * scale;
    image.width = (columns * (width + 1) - 1) * scale;
    if (scale > kMostPixels || image.height > kMostPixels / image.width) {
        throw std::runtime_error("the sheet of pictures is too large: choose a smaller --scale or --batch");
    }
    image.pixels.resize(image.height * image.width * channels);
    std::uint8_t *pixel = image.pixels.data();
    for (std::size_t y = 0; y < image.height; ++y) {
        for (std::size_t x = 0; x < image.width; ++x) {
            const std::size_t row = y / scale / (height + 1), line = y / scale % (height + 1);
            const std::size_t column = x / scale / (width + 1), place = x / scale % (width + 1);
            const std::size_t sample = row * columns + column;
            for (std::size_t c = 0; c < channels; ++c) {
                if (line == height || place == width) {
                    *pixel++ = kLine;
                } else if (sample < batch) {
                    *pixel++ = to_byte(samples[((sample * channels + c) * height + line) * width + place], low, high);
                } else {
                    *pixel++ = 0;
                }
            }
        }
    }
    return image;
}

class Png {
public:
    explicit Png(const Image &image) {
        bytes_ = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
        std::vector<std::uint8_t> header;
        put(header, static_cast<std::uint32_t>(image.width));
        put(header, static_cast<std::uint32_t>(image.height));
        header.insert(header.end(), {8, static_cast<std::uint8_t>(image.channels == 3 ? 2 : 0), 0, 0, 0});
        chunk("IHDR", header);
        chunk("IDAT", deflated(image));
        chunk("IEND", {});
    }

    const std::vector<std::uint8_t> &bytes() const { return bytes_; }

private:
    static void put(std::vector<std::uint8_t> &to, std::uint32_t value) {
        for (const unsigned shift : {24U, 16U, 8U, 0U}) to.push_back(static_cast<std::uint8_t>(value >> shift));
    }

    // A zlib stream of blocks that are stored as they are.
    static std::vector<std::uint8_t> deflated(const Image &image) {
        std::vector<std::uint8_t> raw;
        const std::size_t pitch = image.width * image.channels;
        for (std::size_t y = 0; y < image.height; ++y) {
            raw.push_back(0);
            const auto line = image.pixels.begin() + static_cast<std::ptrdiff_t>(y * pitch);
            raw.insert(raw.end(), line, line + static_cast<std::ptrdiff_t>(pitch));
        }
        std::vector<std::uint8_t> stream{0x78, 0x01};
        std::uint32_t a = 1;
        std::uint32_t b = 0;
        for (std::size_t at = 0; at < raw.size(); at += 65535) {
            const std::size_t size = std::min<std::size_t>(raw.size() - at, 65535);
            const auto low = static_cast<std::uint8_t>(size & 0xff), high = static_cast<std::uint8_t>(size >> 8U);
            stream.insert(stream.end(), {static_cast<std::uint8_t>(at + size == raw.size() ? 1 : 0), low, high,
                                         static_cast<std::uint8_t>(~low), static_cast<std::uint8_t>(~high)});
            for (std::size_t k = at; k < at + size; ++k) {
                stream.push_back(raw[k]);
                a = (a + raw[k]) % 65521;
                b = (b + a) % 65521;
            }
        }
        put(stream, b << 16U | a);
        return stream;
    }

    void chunk(const char *name, const std::vector<std::uint8_t> &data) {
        put(bytes_, static_cast<std::uint32_t>(data.size()));
        const std::size_t begin = bytes_.size();
        bytes_.insert(bytes_.end(), name, name + 4);
        bytes_.insert(bytes_.end(), data.begin(), data.end());
        std::uint32_t crc = 0xffffffffU;
        for (std::size_t k = begin; k < bytes_.size(); ++k) {
            crc ^= bytes_[k];
            for (int bit = 0; bit < 8; ++bit) crc = crc >> 1U ^ ((crc & 1U) != 0 ? 0xedb88320U : 0U);
        }
        put(bytes_, ~crc);
    }

    std::vector<std::uint8_t> bytes_;
};

inline void write_png(const std::string &path, const Image &image) {
    const Png png(image);
    std::FILE *file = std::fopen(path.c_str(), "wb");
    if (file == nullptr) throw std::runtime_error("the picture cannot be written: " + path);
    const bool whole = std::fwrite(png.bytes().data(), 1, png.bytes().size(), file) == png.bytes().size();
    if (std::fclose(file) != 0 || !whole) throw std::runtime_error("the picture was not written whole: " + path);
}

}  // namespace picture
