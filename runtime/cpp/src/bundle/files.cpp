#include "files.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <vector>

#include "../failure.h"
#include "../sha256.h"
#include "text.h"

namespace dpmrt_core {
namespace {

namespace fs = std::filesystem;

fs::path resolved(const std::string &path) {
    std::error_code error;
    fs::path whole = fs::weakly_canonical(fs::u8path(path), error);
    if (error) throw FileError{error.message() + ": " + quoted(path), false};
    return whole;
}

void blocks(const std::string &path, const std::function<void(const char *, std::size_t)> &take) {
    const auto refuse = [&path](int code) {
        return FileError{format("[Errno %d] %s: ", code, std::strerror(code)) + quoted(path), code == ENOENT};
    };
    std::error_code ignored;
    // A pipe or a device may never end.
    if (fs::is_other(fs::status(fs::u8path(path), ignored))) throw FileError{quoted(path) + " is no file", false};
    const std::unique_ptr<std::FILE, int (*)(std::FILE *)> file(std::fopen(fs::u8path(path).string().c_str(), "rb"),
                                                                std::fclose);
    if (!file) throw refuse(errno);
    std::vector<char> buffer(1U << 18U);
    for (;;) {
        const std::size_t taken = std::fread(buffer.data(), 1, buffer.size(), file.get());
        if (std::ferror(file.get()) != 0) throw refuse(errno);
        take(buffer.data(), taken);
        if (taken < buffer.size()) return;
    }
}

}  // namespace

std::string joined(const std::string &folder, const std::string &name) {
    return (fs::u8path(folder) / fs::u8path(name)).u8string();
}

bool is_folder(const std::string &path) {
    std::error_code ignored;
    return fs::is_directory(fs::u8path(path), ignored);
}

bool is_file(const std::string &path) {
    std::error_code ignored;
    return fs::is_regular_file(fs::u8path(path), ignored);
}

std::int64_t file_size(const std::string &path) {
    std::error_code ignored;
    return static_cast<std::int64_t>(fs::file_size(fs::u8path(path), ignored));
}

bool lies_within(const std::string &folder, const std::string &path) {
    const fs::path outer = resolved(folder), inner = resolved(path);
    return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
}

bool is_rooted(const std::string &name) { return fs::u8path(name).has_root_path(); }

std::string read_file(const std::string &path, std::size_t most) {
    std::string whole;
    blocks(path, [&](const char *data, std::size_t size) {
        if (size > most - whole.size()) throw FileError{quoted(path) + format(" has more than %zu bytes", most), false};
        whole.append(data, size);
    });
    return whole;
}

std::string hash_file(const std::string &path) {
    Sha256 hash;
    blocks(path, [&](const char *data, std::size_t size) { hash.update(data, size); });
    return Sha256::hex(hash.digest());
}

}  // namespace dpmrt_core
