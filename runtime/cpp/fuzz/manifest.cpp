// Any bytes for a manifest, and for a graph whose weights are looked for: refused in words, or read.
//
// With Clang this is a libFuzzer target; others make a program of it that reads the files of a corpus, and what is altered
// from them.
#include <cstdint>
#include <cstdlib>
#include <sstream>
#include <string>
#include <string_view>

#include "bundle/external.h"
#include "bundle/manifest.h"
#include "failure.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
    const std::string bytes(reinterpret_cast<const char *>(data), size);
    try {
        const dpmrt_core::Manifest manifest = dpmrt_core::parse_manifest(bytes, ".");
        // What was taken has what the rest of the library counts on.
        if (manifest.unet.input("sample") == nullptr || manifest.file(manifest.unet.path) == nullptr) std::abort();
        manifest.unet.sample_shape();
    } catch (const dpmrt_core::Failure &failure) {
        if (std::string_view(failure.what()).empty() || failure.status() == DPMRT_OK) std::abort();
    }
    try {
        std::istringstream stream(bytes);
        dpmrt_core::external_locations(stream);
    } catch (const dpmrt_core::OnnxError &error) {
        if (error.what.empty()) std::abort();
    }
    return 0;
}

#ifndef DPMRT_FUZZ
#include "altered.h"

int main(int argc, char **argv) { return altered::folder(argc, argv); }
#endif
