// The files of a bundle's folder.
#pragma once

#include <filesystem>
#include <string>

namespace dpmrt_core {

// A path from UTF-8, whatever the system's own encoding.
std::filesystem::path path_of(const std::string &text);

// Why a file could not be read; `missing` where there is none.
struct FileError {
    std::string what;
    bool missing;
};

// All of a file, unless it is longer than `most`; throws FileError.
std::string read_file(const std::filesystem::path &path, std::size_t most);

// The SHA-256 of a file as hexadecimal digits; throws FileError.
std::string hash_file(const std::filesystem::path &path);

}  // namespace dpmrt_core
