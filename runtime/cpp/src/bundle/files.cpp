#include "files.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "../failure.h"
#include "../sha256.h"
#include "text.h"

namespace dpmrt_core {
namespace {

void blocks(const std::filesystem::path &path, const std::function<void(const char *, std::size_t)> &take) {
    const auto refuse = [&path](int code) {
        const std::string what = format("[Errno %d] %s: ", code, std::strerror(code));
        return FileError{what + quoted(path.u8string()), code == ENOENT};
    };
    errno = 0;
    std::error_code ignored;
    const auto status = std::filesystem::status(path, ignored);
    // A pipe or a device may never end.
    if (std::filesystem::is_other(status)) throw FileError{quoted(path.u8string()) + " is no file", false};
    const std::unique_ptr<std::FILE, int (*)(std::FILE *)> file(std::fopen(path.string().c_str(), "rb"), std::fclose);
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

std::filesystem::path path_of(const std::string &text) { return std::filesystem::u8path(text); }

std::string read_file(const std::filesystem::path &path, std::size_t most) {
    std::string whole;
    blocks(path, [&](const char *data, std::size_t size) {
        if (size > most - whole.size()) {
            throw FileError{quoted(path.u8string()) + format(" has more than %zu bytes", most), false};
        }
        whole.append(data, size);
    });
    return whole;
}

std::string hash_file(const std::filesystem::path &path) {
    Sha256 hash;
    blocks(path, [&](const char *data, std::size_t size) { hash.update(data, size); });
    return Sha256::hex(hash.digest());
}

}  // namespace dpmrt_core
