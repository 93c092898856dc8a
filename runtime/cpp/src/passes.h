// Updates applied to rows of numbers, in place, in one pass over memory.
#pragma once

#include <cstddef>
#include <vector>

#include "composition.h"

namespace dpmrt_core {

// An update with its weights in the state's type, bound to the rows it works on.
template <class Real>
class Pass {
public:
    Pass(const Update &update, Real *rows, std::size_t pitch, std::size_t size, std::size_t watched);

    // Applies the update; returns whether the watched row, if it is a target, is finite.
    bool apply() const;

private:
    struct Target {
        Real *row;
        bool watched;
        std::vector<Real> weights;
    };

    std::vector<const Real *> sources_;
    std::vector<Target> targets_;
    std::size_t size_;
};

extern template class Pass<float>;
extern template class Pass<double>;

}  // namespace dpmrt_core
