// The files of a bundle, held against what its manifest says of them.
#include <algorithm>
#include <cmath>
#include <optional>

#include "../failure.h"
#include "../json.h"
#include "external.h"
#include "files.h"
#include "manifest.h"
#include "text.h"

namespace dpmrt_core {
namespace {

constexpr char kCopy[] = "copy the bundle again, or export it anew: dpmrt export SOURCE -o BUNDLE";

void check_file(const std::string &root, const std::string &name, const FileRecord &record) {
    const std::string path = joined(root, name);
    if (!is_file(path)) {
        fail(DPMRT_ERROR_FILE, "a file of the bundle is missing", "no " + name + " in " + root, name,
             kCopy);
    }
    const std::int64_t size = file_size(path);
    if (size != record.bytes) {
        fail(DPMRT_ERROR_FORMAT, name + (size < record.bytes ? " is truncated" : " is longer than it was"),
             decimal(size) + " bytes", decimal(record.bytes) + " bytes", kCopy);
    }
    std::string digest;
    try {
        digest = hash_file(path);
    } catch (const FileError &failure) {
        fail(DPMRT_ERROR_FILE, name + " cannot be read", failure.what, "a readable file", kCopy);
    }
    if (digest != record.sha256) {
        fail(DPMRT_ERROR_FORMAT, name + " was altered", "SHA-256 " + digest, "SHA-256 " + record.sha256, kCopy);
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
void check_weights(const std::string &root, const std::string &path, const std::vector<std::string> &data) {
    std::vector<std::string> locations;
    try {
        locations = external_locations(joined(root, path));
    } catch (const OnnxError &error) {
        fail(DPMRT_ERROR_FORMAT, path + " is not an ONNX model", error.what, "a file that torch.onnx wrote",
             kExportAgain);
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
std::optional<std::int64_t> labels(const std::string &config) {
    try {
        const Json read = Json::parse(read_file(config, kMostText), true);
        const Json *count = read.find("num_class_embeds");
        if (count == nullptr || !count->whole() || std::abs(count->number()) > 1e15) return std::nullopt;
        return static_cast<std::int64_t>(count->number());
    } catch (const JsonError &) {
        return std::nullopt;
    } catch (const FileError &) {
        return std::nullopt;
    }
}

void check_labels(const std::string &root, const Manifest &manifest) {
    if (!manifest.unet.config || !manifest.guidance) return;
    const auto known = labels(joined(root, *manifest.unet.config));
    if (!known) return;
    // Classes are labelled from 0, so that the last one is classes - 1.
    const Guidance &guidance = *manifest.guidance;
    const std::pair<const char *, std::int64_t> last[] = {{"classes", guidance.classes - 1},
                                                          {"null_label", guidance.null_label}};
    for (const auto &[field, label] : last) {
        if (label < *known) continue;
        const std::int64_t value = field == last[0].first ? guidance.classes : guidance.null_label;
        out_of_range(std::string("guidance.") + field, decimal(value),
                     "labels below " + decimal(*known) + ", the num_class_embeds in " + *manifest.unet.config);
    }
}

}  // namespace

Manifest read_manifest(const std::string &root) {
    if (!is_folder(root)) {
        fail(DPMRT_ERROR_FILE, "no bundle folder here", root, "a folder that `dpmrt export` wrote", kExportAgain);
    }
    std::string raw;
    try {
        raw = read_file(joined(root, "dpmrt.json"), kMostText);
    } catch (const FileError &failure) {
        if (failure.missing) {
            fail(DPMRT_ERROR_FILE, "dpmrt.json is missing", root, "a folder that holds dpmrt.json", kExportAgain);
        }
        fail(DPMRT_ERROR_FILE, "dpmrt.json cannot be read", failure.what, "a readable file");
    }
    Manifest manifest = parse_manifest(raw, root);
    for (const FileRecord &record : manifest.files) check_file(root, record.name, record);
    for (const auto &named : manifest.networks()) {
        check_weights(root, named.network->path, named.network->data);
        if (named.network->precision.emulated) {
            check_weights(root, *named.network->precision.emulated, named.network->data);
        }
    }
    check_labels(root, manifest);
    return manifest;
}

}  // namespace dpmrt_core
