// Numbers of a session, written as a graph's type and read from it.
#pragma once

#include <cstddef>

#include "dpmrt/bundle.h"

namespace dpmrt_adapter {

// Writes numbers of type `from` as the graph's; a network takes no other than these real types.
void write_numbers(const void *from, dpmrt_dtype dtype, std::size_t count, dpmrt_tensor_type type, void *to);
void read_numbers(const void *from, dpmrt_tensor_type type, std::size_t count, dpmrt_dtype dtype, void *to);

// Writes one number, the time, `count` times over.
void fill_number(double value, std::size_t count, dpmrt_tensor_type type, void *to);

// Whether the graph's numbers are the session's as they are.
bool same_numbers(dpmrt_dtype dtype, dpmrt_tensor_type type);

}  // namespace dpmrt_adapter
