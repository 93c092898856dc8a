// Updates applied to rows of numbers, in place, in one pass over memory.
#pragma once

#include <cstddef>
#include <vector>

#include "composition.h"

namespace dpmrt_core {

// An update with its weights in the state's type, bound to the rows it works on: `size` numbers each, in memory up to a
// whole line, of which the rest are zeros.
template <class Real>
class Pass {
public:
    Pass(const Update &update, Real *rows, std::size_t pitch, std::size_t size, std::size_t watched);

    // Applies the update; returns whether the watched row, if it is a target, is finite.
    bool apply() const;

private:
    std::vector<const Real *> sources_;
    std::vector<Real *> targets_;  // the watched one first
    std::vector<Real> weights_;    // targets x sources
    std::size_t lines_;
    bool (*fused_)(Real *const *targets, const Real *const *sources, const Real *weights, std::size_t lines);
    bool watches_;
};

// Writes from[k] * factor into `into`, which may be the same; returns whether all of it is finite.
template <class Real>
bool scale_into(Real *into, const Real *from, Real factor, std::size_t size);

extern template class Pass<float>;
extern template class Pass<double>;
extern template bool scale_into(float *, const float *, float, std::size_t);
extern template bool scale_into(double *, const double *, double, std::size_t);

}  // namespace dpmrt_core
