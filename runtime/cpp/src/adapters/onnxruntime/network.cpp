#include "network.h"

#include <filesystem>
#include <limits>

namespace dpmrt_adapter {
namespace {

constexpr char kAgain[] = "export the network again: dpmrt export SOURCE -o BUNDLE";

dpmrt_tensor_type type_of(ONNXTensorElementDataType type, const std::string &name) {
    switch (type) {
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return DPMRT_TENSOR_FLOAT32;
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16: return DPMRT_TENSOR_FLOAT16;
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16: return DPMRT_TENSOR_BFLOAT16;
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64: return DPMRT_TENSOR_INT64;
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32: return DPMRT_TENSOR_INT32;
        default: break;
    }
    refuse(DPMRT_ERROR_FORMAT, "`" + name + "` has a type that dpmrt cannot bind", "element type " + std::to_string(type),
           "float32, float16, bfloat16, int64 or int32");
}

Tensor tensor_of(const std::string &name, const OrtTypeInfo *type) {
    constexpr char kWhat[] = "ONNX Runtime does not describe the network";
    const OrtTensorTypeAndShapeInfo *info = nullptr;
    check_ort(ort().CastTypeInfoToTensorInfo(type, &info), kWhat);
    if (info == nullptr) refuse(DPMRT_ERROR_FORMAT, "`" + name + "` is no tensor", "another kind of value", "a tensor");
    ONNXTensorElementDataType element = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    check_ort(ort().GetTensorElementType(info, &element), kWhat);
    std::size_t rank = 0;
    check_ort(ort().GetDimensionsCount(info, &rank), kWhat);
    Tensor made;
    made.name = name;
    made.type = type_of(element, name);
    made.shape.resize(rank);
    check_ort(ort().GetDimensions(info, made.shape.data(), rank), kWhat);
    std::vector<const char *> axes(rank);
    check_ort(ort().GetSymbolicDimensions(info, axes.data(), rank), kWhat);
    for (std::size_t k = 0; k < rank; ++k) {
        const bool free = made.shape[k] < 0;
        if (free) made.shape[k] = 0;
        made.axes.emplace_back(!free ? "" : axes[k][0] != '\0' ? axes[k] : "?");
    }
    return made;
}

std::string graph_path(const dpmrt_bundle *bundle, int graph) {
    dpmrt_network_info info;
    dpmrt_error error;
    check(dpmrt_bundle_network(bundle, DPMRT_NETWORK_UNET, &info, &error), error);
    if (graph < DPMRT_GRAPH_AUTO || graph > DPMRT_GRAPH_EMULATED) {
        refuse(DPMRT_ERROR_ARGUMENT, "there is no such graph", std::to_string(graph), "a dpmrt_onnxruntime_graph");
    }
    const bool emulated = graph == DPMRT_GRAPH_EMULATED ||
                          (graph == DPMRT_GRAPH_AUTO && std::string(info.precision) == "bf16" && info.has_emulated != 0);
    if (!emulated) return info.graph.path;
    if (info.has_emulated == 0) {
        refuse(DPMRT_ERROR_ARGUMENT, "the bundle has no graph that emulates its precision",
               std::string(info.graph.name) + " in " + info.precision + ", and no `precision.emulated`",
               "a bundle of fp16 or bf16", "DPMRT_GRAPH_OWN");
    }
    return info.emulated.path;
}

}  // namespace

const OrtApi &ort() {
    static const OrtApi *const api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (api == nullptr) {
        refuse(DPMRT_ERROR_ENGINE, "the ONNX Runtime library is older than the headers that this was compiled with",
               OrtGetApiBase()->GetVersionString(), "1." + std::to_string(ORT_API_VERSION) + " or later",
               "update ONNX Runtime, or compile with its headers");
    }
    return *api;
}

void check_ort(OrtStatus *status, const char *what, const std::string &expected, const std::string &fix) {
    if (status == nullptr) return;
    const std::string message = ort().GetErrorMessage(status);
    ort().ReleaseStatus(status);
    refuse(DPMRT_ERROR_ENGINE, what, message.substr(0, message.find('\n')), expected, fix);
}

OrtNetwork::OrtNetwork(const dpmrt_bundle *bundle, const dpmrt_onnxruntime_params &params) : spec_(NetworkSpec::of(bundle)) {
    if (params.threads < 0) {
        refuse(DPMRT_ERROR_ARGUMENT, "threads is out of range", std::to_string(params.threads),
               "1 or more, or 0 to leave it to ONNX Runtime");
    }
    const std::string path = graph_path(bundle, params.graph);
    env_ = held<OrtEnv>("ONNX Runtime does not start",
                        [](OrtEnv **made) { return ort().CreateEnv(ORT_LOGGING_LEVEL_FATAL, "dpmrt", made); });
    const auto options = held<OrtSessionOptions>("ONNX Runtime does not start",
                                                 [](OrtSessionOptions **made) { return ort().CreateSessionOptions(made); });
    constexpr char kOptions[] = "ONNX Runtime refuses its options";
    check_ort(ort().SetSessionLogSeverityLevel(options.get(), ORT_LOGGING_LEVEL_FATAL), kOptions);
    check_ort(ort().SetSessionGraphOptimizationLevel(options.get(), ORT_ENABLE_ALL), kOptions);
    check_ort(ort().SetSessionExecutionMode(options.get(), ORT_SEQUENTIAL), kOptions);
    if (params.threads > 0) check_ort(ort().SetIntraOpNumThreads(options.get(), params.threads), kOptions);
    OrtSession *session = nullptr;
    const auto native = std::filesystem::u8path(path);
    check_ort(ort().CreateSession(env_.get(), native.c_str(), options.get(), &session), "ONNX Runtime refuses the network",
              "a valid ONNX model in " + path, kAgain);
    session_.reset(session);
    memory_ = held<OrtMemoryInfo>("ONNX Runtime does not start", [](OrtMemoryInfo **made) {
        return ort().CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, made);
    });
    spec_.check_graph("input", tensors(true));
    spec_.check_graph("output", tensors(false));
}

std::vector<Tensor> OrtNetwork::tensors(bool inputs) const {
    constexpr char kWhat[] = "ONNX Runtime does not describe the network";
    OrtAllocator *allocator = nullptr;
    check_ort(ort().GetAllocatorWithDefaultOptions(&allocator), kWhat);
    std::size_t count = 0;
    check_ort(inputs ? ort().SessionGetInputCount(session(), &count) : ort().SessionGetOutputCount(session(), &count), kWhat);
    std::vector<Tensor> found;
    for (std::size_t k = 0; k < count; ++k) {
        char *text = nullptr;
        const auto name_of = inputs ? ort().SessionGetInputName : ort().SessionGetOutputName;
        const auto type_of_node = inputs ? ort().SessionGetInputTypeInfo : ort().SessionGetOutputTypeInfo;
        check_ort(name_of(session(), k, allocator, &text), kWhat);
        const std::string name = text;
        check_ort(ort().AllocatorFree(allocator, text), kWhat);
        const auto type = held<OrtTypeInfo>(kWhat, [&](OrtTypeInfo **made) { return type_of_node(session(), k, made); });
        found.push_back(tensor_of(name, type.get()));
    }
    return found;
}

}  // namespace dpmrt_adapter
