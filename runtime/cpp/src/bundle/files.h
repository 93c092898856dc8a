// Files and folders by their paths in UTF-8.
#pragma once

#include <cstdint>
#include <string>

namespace dpmrt_core {

// Why a file could not be read; `missing` where there is none.
struct FileError {
    std::string what;
    bool missing;
};

std::string joined(const std::string &folder, const std::string &name);
bool is_folder(const std::string &path);
bool is_file(const std::string &path);
// -1 where it is not known.
std::int64_t file_size(const std::string &path);
// Whether a path, with its links followed as far as it exists, lies within a folder; throws FileError.
bool lies_within(const std::string &folder, const std::string &path);
// Whether a name begins at the root of a disk.
bool is_rooted(const std::string &name);

// All of a file, unless it is longer than `most`; throws FileError.
std::string read_file(const std::string &path, std::size_t most);

// The SHA-256 of a file as hexadecimal digits; throws FileError.
std::string hash_file(const std::string &path);

}  // namespace dpmrt_core
