// The executor: runs any plan against any engine, and holds no formula.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "buffer.h"
#include "dpmrt/dpmrt.h"
#include "plan.h"

namespace dpmrt_core {

// A plan bound to an engine, a shape and a type.
class Executor {
public:
    virtual ~Executor() = default;
    // Runs the plan and writes the result; throws Failure.
    virtual void run(const dpmrt_run_params &params, void *out) = 0;

    static std::unique_ptr<Executor> make(std::shared_ptr<const Plan> plan, const dpmrt_engine &engine,
                                          const dpmrt_session_params &params);
};

}  // namespace dpmrt_core
