// The files of a bundle, held against what its manifest says of them.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <optional>
#include <set>

#include "../failure.h"
#include "../json.h"
#include "external.h"
#include "files.h"
#include "manifest.h"
#include "text.h"

namespace dpmrt_core {
namespace {

namespace fs = std::filesystem;

constexpr char kCopy[] = "copy the bundle again, or export it anew: dpmrt export SOURCE -o BUNDLE";

void check_file(const fs::path &root, const std::string &name, const FileRecord &record) {
    const fs::path path = root / path_of(name);
    std::error_code error;
    if (!fs::is_regular_file(path, error)) {
        throw Failure(DPMRT_ERROR_FILE, "a file of the bundle is missing", "no " + name + " in " + root.u8string(), name,
                      kCopy);
    }
    const auto size = static_cast<std::int64_t>(fs::file_size(path, error));
    if (size != record.bytes) {
        throw Failure(DPMRT_ERROR_FORMAT, name + (size < record.bytes ? " is truncated" : " is longer than it was"),
                      std::to_string(size) + " bytes", std::to_string(record.bytes) + " bytes", kCopy);
    }
    std::string digest;
    try {
        digest = hash_file(path);
    } catch (const FileError &failure) {
        throw Failure(DPMRT_ERROR_FILE, name + " cannot be read", failure.what, "a readable file", kCopy);
    }
    if (digest != record.sha256) {
        throw Failure(DPMRT_ERROR_FORMAT, name + " was altered", "SHA-256 " + digest, "SHA-256 " + record.sha256, kCopy);
    }
}

// The name of a file that another one names relative to itself, without parts that say nothing.
std::string beside(const std::string &path, const std::string &location) {
    if (location[0] == '/') return location;
    const std::string whole = path.substr(0, path.rfind('/') + 1) + location;
    std::string name;
    for (std::size_t at = 0; at <= whole.size();) {
        const std::size_t end = std::min(whole.find('/', at), whole.size());
        const std::string part = whole.substr(at, end - at);
        if (!part.empty() && part != ".") name += (name.empty() ? "" : "/") + part;
        at = end + 1;
    }
    return name;
}

// Refuses a graph that would load weights from a file whose hash was not looked at.
void check_weights(const fs::path &root, const std::string &path, const std::vector<std::string> &data) {
    std::set<std::string> locations;
    std::ifstream stream(root / path_of(path), std::ios::binary);
    try {
        locations = external_locations(stream);
    } catch (const OnnxError &error) {
        throw Failure(DPMRT_ERROR_FORMAT, path + " is not an ONNX model", error.what, "a file that torch.onnx wrote",
                      kAgain);
    }
    for (const std::string &location : locations) {
        const std::string name = beside(path, location);
        check_inside(root, "weights of " + path, name);
        if (std::find(data.begin(), data.end(), name) == data.end()) {
            refuse_manifest("the graph keeps weights in a file that `data` does not name", quoted(name),
                   data.empty() ? "all weights within " + path : listed(data));
        }
    }
}

// How many labels the network's config says it knows; a damaged config says nothing here.
std::optional<std::int64_t> labels(const fs::path &config) {
    try {
        const Json read = Json::parse(read_file(config, kMostBytes), true);
        const Json *count = read.find("num_class_embeds");
        if (count == nullptr || !count->whole() || std::abs(count->number()) > 1e15) return std::nullopt;
        return static_cast<std::int64_t>(count->number());
    } catch (const JsonError &) {
        return std::nullopt;
    } catch (const FileError &) {
        return std::nullopt;
    }
}

void check_labels(const fs::path &root, const Manifest &manifest) {
    if (!manifest.unet.config || !manifest.guidance) return;
    const auto known = labels(root / path_of(*manifest.unet.config));
    if (!known) return;
    // Classes are labelled from 0, so that the last one is classes - 1.
    const Guidance &guidance = *manifest.guidance;
    const std::pair<const char *, std::int64_t> last[] = {{"classes", guidance.classes - 1},
                                                          {"null_label", guidance.null_label}};
    for (const auto &[field, label] : last) {
        if (label < *known) continue;
        const std::int64_t value = field == last[0].first ? guidance.classes : guidance.null_label;
        out_of_range(std::string("guidance.") + field, std::to_string(value),
                     "labels below " + std::to_string(*known) + ", the num_class_embeds in " + *manifest.unet.config);
    }
}

}  // namespace

Manifest read_manifest(const fs::path &root) {
    const std::string shown_root = root.u8string();
    std::error_code error;
    if (!fs::is_directory(root, error)) {
        throw Failure(DPMRT_ERROR_FILE, "no bundle folder here", shown_root, "a folder that `dpmrt export` wrote", kAgain);
    }
    std::string raw;
    try {
        raw = read_file(root / "dpmrt.json", kMostBytes);
    } catch (const FileError &failure) {
        if (failure.missing) {
            throw Failure(DPMRT_ERROR_FILE, "dpmrt.json is missing", shown_root, "a folder that holds dpmrt.json", kAgain);
        }
        throw Failure(DPMRT_ERROR_FILE, "dpmrt.json cannot be read", failure.what, "a readable file");
    }
    Manifest manifest = parse_manifest(raw, root);
    for (const auto &[name, record] : manifest.files) check_file(root, name, record);
    for (const auto &named : manifest.networks()) {
        check_weights(root, named.second->path, named.second->data);
        if (named.second->precision.emulated) {
            check_weights(root, *named.second->precision.emulated, named.second->data);
        }
    }
    check_labels(root, manifest);
    return manifest;
}

}  // namespace dpmrt_core
