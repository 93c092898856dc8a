// What is behind the handles that more than one file of C functions takes.
#pragma once

#include <memory>

#include "dpmrt/dpmrt.h"
#include "plan.h"

struct dpmrt_plan {
    std::shared_ptr<const dpmrt_core::Plan> table;
};
