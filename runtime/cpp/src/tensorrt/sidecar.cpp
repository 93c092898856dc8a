#include "sidecar.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <tuple>

#include "../bundle/files.h"
#include "../failure.h"
#include "../sha256.h"
#include "fit.h"

namespace dpmrt_core {
namespace {

constexpr char kAgain[] = "build it again: dpmrt build BUNDLE --force";
constexpr std::size_t kMostBytes = std::size_t{1} << 24U;

Sidecar read_sidecar(const std::string &folder, const std::string &key) {
    const std::string name = key + ".json";
    Sidecar made{key, {}};
    try {
        made.whole = Json::parse(read_file(joined(folder, name), kMostBytes));
    } catch (const FileError &error) {
        fail(DPMRT_ERROR_FILE, name + " cannot be read", error.what, "a readable file");
    } catch (const JsonError &error) {
        fail(DPMRT_ERROR_FORMAT, name + " is not JSON", error.what, "a JSON object", kAgain);
    }
    const Json *kind = made.whole.find("format");
    if (kind == nullptr || kind->text() != "dpmrt-engine") {
        fail(DPMRT_ERROR_FORMAT, name + ": `format` is not a built engine's", kind == nullptr ? "None" : "'" + kind->text() + "'",
             "'dpmrt-engine'", kAgain);
    }
    const Json *version = made.whole.find("version");
    if (version == nullptr || !version->is(Json::Kind::number) || version->text() != "1") {
        fail(DPMRT_ERROR_VERSION, name + ": unknown `version`", version == nullptr ? "None" : version->text(), "1",
             std::string("update dpmrt, or ") + kAgain);
    }
    const std::string text = canonical(made.at({"request"}));
    const std::string request = Sha256::hex(Sha256::of(text.data(), text.size())).substr(0, 16);
    const std::string &said = made.at({"key"}).text();
    if (said != request) fail(DPMRT_ERROR_FORMAT, name + ": `key` is not the key of its request", said, request, kAgain);
    if (said != key) fail(DPMRT_ERROR_FORMAT, name + ": `key` is not its file's name", said, key, kAgain);
    return made;
}

std::string show(const std::vector<std::int64_t> &shape) {
    std::string text;
    for (const std::int64_t size : shape) text += (text.empty() ? "" : "x") + std::to_string(size);
    return text.empty() ? "scalar" : text;
}

std::string check_plan(const Sidecar &one, const std::string &folder) {
    const std::string name = one.key + ".plan", path = joined(folder, name);
    const std::string &bytes = one.at({"plan", "bytes"}).text();
    const std::int64_t size = file_size(path), wanted = std::atoll(bytes.c_str());
    if (size < 0) fail(DPMRT_ERROR_FILE, "the plan of a built engine is missing", path, name, kAgain);
    if (size != wanted) {
        fail(DPMRT_ERROR_FORMAT, name + (size < wanted ? " is truncated" : " is longer than it was"),
             std::to_string(size) + " bytes", bytes + " bytes", kAgain);
    }
    std::string digest;
    try {
        digest = hash_file(path);
    } catch (const FileError &error) {
        fail(DPMRT_ERROR_FILE, name + " cannot be read", error.what, "a readable file");
    }
    const std::string &said = one.at({"plan", "sha256"}).text();
    if (digest != said) fail(DPMRT_ERROR_FORMAT, name + " was altered", "SHA-256 " + digest, "SHA-256 " + said, kAgain);
    return path;
}

std::vector<std::string> keys_in(const std::string &folder) {
    std::vector<std::string> keys;
    std::error_code ignored;
    for (std::filesystem::directory_iterator at(folder, ignored), end; !ignored && at != end; at.increment(ignored)) {
        const std::string stem = at->path().stem().string();
        const bool hexadecimal = stem.size() == 16 && stem.find_first_not_of("0123456789abcdef") == std::string::npos;
        if (at->path().extension() == ".json" && hexadecimal) keys.push_back(stem);
    }
    std::sort(keys.begin(), keys.end());
    return keys;
}

// The text of a failure in one line: what, and in brackets what arrived and what was expected.
std::string one_line(const Failure &failure) {
    std::string text = failure.what();
    for (std::size_t at = 0; (at = text.find('\n', at)) != std::string::npos;) text.replace(at, 1, ";");
    return text;
}

}  // namespace

std::string this_platform() {
#if defined(__aarch64__)
    return "linux-aarch64";
#else
    return "linux-x86_64";
#endif
}

BuiltEngine find_engine(const std::string &folder, const std::map<std::string, std::string> &source, const Machine &machine,
                        const Shapes &shapes, const std::string &bundle) {
    struct Suited {
        std::tuple<bool, double, std::string> preference;
        Sidecar sidecar;
        int profile;
    };
    std::vector<Suited> suited;
    std::string refused;
    std::size_t count = 0;
    const auto refuse = [&](const std::string &key, const std::string &why) {
        refused += (count++ == 0 ? "" : "\n") + key + ": " + why;
    };
    for (const std::string &key : keys_in(folder)) {
        try {
            Sidecar one = read_sidecar(folder, key);
            std::vector<std::string> why = misfits(one, source, machine);
            const auto [profile, far] = choose_profile(one, shapes);
            if (profile < 0) {
                std::string here;
                for (const auto &shape : shapes) here += (here.empty() ? "" : ", ") + shape.first + ":" + show(shape.second);
                why.push_back(misfit("shapes", "profiles none of which has them together", here));
            }
            if (why.empty()) {
                const bool portable = one.at({"request", "target", "kind"}).text() != "device";
                suited.push_back({{portable, far, key}, std::move(one), profile});
                continue;
            }
            std::string text;
            for (const std::string &line : why) text += (text.empty() ? "" : "\n  ") + line;
            refuse(key, text);
        } catch (const Failure &failure) {
            refuse(key, one_line(failure));
        }
    }
    std::sort(suited.begin(), suited.end(), [](const Suited &a, const Suited &b) { return a.preference < b.preference; });
    for (const Suited &one : suited) {
        try {
            return {one.sidecar.key, check_plan(one.sidecar, folder), one.profile};
        } catch (const Failure &failure) {
            refuse(one.sidecar.key, one_line(failure));
        }
    }
    if (count == 0) {
        fail(DPMRT_ERROR_ENGINE, "no TensorRT engine was built for the unet", "none in " + folder, "one", "dpmrt build " + bundle);
    }
    fail(DPMRT_ERROR_ENGINE,
         count > 1 ? format("none of %zu TensorRT engines suits the unet here", count)
                   : "the TensorRT engine that is there does not suit the unet here",
         refused, "an engine for TensorRT " + machine.version + ", " + machine.gpu + " (" + machine.compute_capability + "), " +
         machine.platform, "dpmrt build " + bundle);
}

}  // namespace dpmrt_core
