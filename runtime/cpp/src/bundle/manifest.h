// `dpmrt.json`, read strictly and held against the files of its folder: engines/manifest.py, in C++.
#pragma once

#include <string>
#include <string_view>

#include "schema.h"

namespace dpmrt_core {

constexpr char kExportAgain[] = "export the network again: dpmrt export SOURCE -o BUNDLE";
// Far more than any manifest or config needs, and little enough to hold.
constexpr std::size_t kMostText = std::size_t{1} << 22U;

// Reads the bytes of a manifest and checks all that needs no file but the folder's links.
Manifest parse_manifest(std::string_view raw, const std::string &root);

// Reads the manifest of a folder and holds every file against its size and hash.
Manifest read_manifest(const std::string &root);

// What the checks share.
[[noreturn]] void refuse_manifest(std::string_view what, std::string_view got, std::string_view expected,
                                  std::string_view fix = kExportAgain);
[[noreturn]] void out_of_range(std::string_view field, std::string_view got, std::string_view expected);
void check_inside(const std::string &root, const std::string &field, const std::string &name);

}  // namespace dpmrt_core
