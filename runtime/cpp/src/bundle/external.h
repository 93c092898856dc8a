// Where an ONNX file keeps weights outside itself, read without ONNX's own reader and without reading the weights.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

namespace dpmrt_core {

// What is no ONNX model.
struct OnnxError {
    std::string what;
};

// The `location` of every tensor that is stored elsewhere, each once and in order; throws OnnxError.
std::vector<std::string> external_locations(const std::string &path);
std::vector<std::string> external_locations(std::istream &stream);

}  // namespace dpmrt_core
