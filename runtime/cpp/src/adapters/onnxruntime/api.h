// ONNX Runtime's C API, with its objects freed when they are let go of and its errors thrown.
#pragma once

#include <onnxruntime_c_api.h>

#include <memory>
#include <string>

#include "../refusal.h"

namespace dpmrt_adapter {

// The interface of the version that was compiled against; refused if the library is older.
const OrtApi &ort();

struct OrtRelease {
    void operator()(OrtEnv *held) const { ort().ReleaseEnv(held); }
    void operator()(OrtSession *held) const { ort().ReleaseSession(held); }
    void operator()(OrtSessionOptions *held) const { ort().ReleaseSessionOptions(held); }
    void operator()(OrtRunOptions *held) const { ort().ReleaseRunOptions(held); }
    void operator()(OrtMemoryInfo *held) const { ort().ReleaseMemoryInfo(held); }
    void operator()(OrtTypeInfo *held) const { ort().ReleaseTypeInfo(held); }
    void operator()(OrtIoBinding *held) const { ort().ReleaseIoBinding(held); }
    void operator()(OrtValue *held) const { ort().ReleaseValue(held); }
};

template <class Kind>
using Held = std::unique_ptr<Kind, OrtRelease>;

// Goes on only if ONNX Runtime succeeded; an error says `what`, and what the library said of it in its first line.
void check_ort(OrtStatus *status, const char *what, const std::string &expected = {}, const std::string &fix = {});

template <class Kind, class Make>
Held<Kind> held(const char *what, Make make) {
    Kind *made = nullptr;
    check_ort(make(&made), what);
    return Held<Kind>(made);
}

}  // namespace dpmrt_adapter
