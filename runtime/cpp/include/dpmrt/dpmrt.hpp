// dpmrt for C++: the C functions behind objects that clean up after themselves, with errors as exceptions.
//
//     auto plan = dpmrt::Plan::load("karras20.steps");
//     dpmrt::Session session(plan, {1, 4, 64, 64}, [](const dpmrt::Call &call) { network(call.x, call.t, call.out); });
//     std::vector<float> sample = session.run(7);
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <initializer_list>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "dpmrt/dpmrt.h"

namespace dpmrt {

// What a function of the library says when it fails.
class Error : public std::runtime_error {
public:
    Error(dpmrt_status status, const char *text) : std::runtime_error(text), status_(status) {}
    dpmrt_status status() const noexcept { return status_; }

private:
    dpmrt_status status_;
};

inline void check(dpmrt_status status, const dpmrt_error &error) {
    if (status != DPMRT_OK) throw Error(status, error.text);
}

// A sampler as a table; copies share it.
class Plan {
public:
    static Plan load(const std::string &path) {
        dpmrt_error error;
        dpmrt_plan *plan = nullptr;
        check(dpmrt_plan_load(path.c_str(), &plan, &error), error);
        return Plan(plan);
    }

    static Plan read(const void *data, std::size_t size) {
        dpmrt_error error;
        dpmrt_plan *plan = nullptr;
        check(dpmrt_plan_read(data, size, &plan, &error), error);
        return Plan(plan);
    }

    dpmrt_plan_info info() const {
        dpmrt_error error;
        dpmrt_plan_info info;
        check(dpmrt_plan_describe(plan_.get(), &info, &error), error);
        return info;
    }

    std::vector<double> times() const {
        dpmrt_error error;
        std::vector<double> times(info().calls);
        check(dpmrt_plan_times(plan_.get(), times.data(), times.size(), &error), error);
        return times;
    }

    const dpmrt_plan *get() const { return plan_.get(); }

private:
    explicit Plan(dpmrt_plan *plan) : plan_(plan, dpmrt_plan_free) {}

    std::shared_ptr<dpmrt_plan> plan_;
};

// One network call: read `x`, write `out`; the sizes are those of the whole batch.
struct Call {
    std::size_t index;
    double t;
    const float *x;
    std::size_t x_size;
    float *out;
    std::size_t out_size;
    bool guided;  // the batch is doubled: the first half is conditioned, the second is not
};

// A plan bound to a network, which is a function or an engine of callbacks, and a shape, in float32.
class Session {
public:
    using Network = std::function<void(const Call &)>;
    // Told after each network call; false stops the run.
    using Progress = std::function<bool(const dpmrt_progress &)>;

    // The shape of the parameters is `shape`, whatever stands there.
    Session(const Plan &plan, const std::vector<std::size_t> &shape, Network network,
            const dpmrt_session_params &params = dpmrt_session_default_params())
        : network_(std::make_unique<Owned>()) {
        network_->network = std::move(network);
        const dpmrt_engine engine{network_.get(), bind, run_network, unbind};
        create(plan, shape, engine, params);
    }

    Session(const Plan &plan, const std::vector<std::size_t> &shape, const dpmrt_engine &engine,
            const dpmrt_session_params &params = dpmrt_session_default_params()) {
        create(plan, shape, engine, params);
    }

    // Samples from the seed's noise.
    std::vector<float> run(std::uint64_t seed = 0, const Progress &progress = {}) {
        dpmrt_run_params params = dpmrt_run_default_params();
        params.seed = seed;
        return run(params, progress);
    }

    // Samples with all that the C function takes, and its progress callback as a function.
    std::vector<float> run(dpmrt_run_params params, const Progress &progress = {}) {
        Told told{&progress, nullptr};
        if (progress) {
            params.progress = tell;
            params.progress_user = &told;
        }
        std::vector<float> out(size_);
        dpmrt_error error;
        const dpmrt_status status = dpmrt_session_run(session_.get(), &params, out.data(), &error);
        if (told.thrown) std::rethrow_exception(told.thrown);
        if (network_ && network_->thrown) std::rethrow_exception(std::exchange(network_->thrown, nullptr));
        check(status, error);
        return out;
    }

    // The same into memory of the caller, with nothing allocated.
    void run(const dpmrt_run_params &params, float *out) {
        dpmrt_error error;
        check(dpmrt_session_run(session_.get(), &params, out, &error), error);
    }

    std::size_t size() const { return size_; }

private:
    struct Owned {
        Network network;
        std::exception_ptr thrown;
    };

    struct Bound {
        Owned *owner;
        const dpmrt_binding *binding;
        std::size_t x_size;
        std::size_t out_size;
    };

    struct Told {
        const Progress *progress;
        std::exception_ptr thrown;
    };

    void create(const Plan &plan, const std::vector<std::size_t> &shape, const dpmrt_engine &engine,
                dpmrt_session_params params) {
        if (shape.size() > DPMRT_MAX_RANK) throw Error(DPMRT_ERROR_SHAPE, "the shape has too many axes");
        params.rank = shape.size();
        size_ = 1;
        for (std::size_t k = 0; k < shape.size(); ++k) size_ *= params.shape[k] = shape[k];
        if (params.dtype != DPMRT_FLOAT32) throw Error(DPMRT_ERROR_ARGUMENT, "this class samples in float32");
        dpmrt_error error;
        dpmrt_session *session = nullptr;
        check(dpmrt_session_create(plan.get(), &engine, &params, &session, &error), error);
        session_.reset(session);
    }

    static dpmrt_status bind(void *user, const dpmrt_binding *binding, void **bound, dpmrt_error *) {
        std::size_t size = 1;
        for (std::size_t k = 0; k < binding->rank; ++k) size *= binding->shape[k];
        auto *made = new (std::nothrow)
            Bound{static_cast<Owned *>(user), binding, size, size * static_cast<std::size_t>(binding->parts)};
        *bound = made;
        return made != nullptr ? DPMRT_OK : DPMRT_ERROR_MEMORY;
    }

    static void unbind(void *, void *bound) { delete static_cast<Bound *>(bound); }

    static dpmrt_status run_network(void *, void *bound, std::size_t call, double t, std::size_t output, dpmrt_error *) {
        const auto *self = static_cast<const Bound *>(bound);
        try {
            self->owner->network({call, t, static_cast<const float *>(self->binding->input), self->x_size,
                                  static_cast<float *>(self->binding->outputs[output]), self->out_size,
                                  self->binding->guided != 0});
            return DPMRT_OK;
        } catch (...) {
            // No exception may cross the C functions; it goes on when they have returned.
            self->owner->thrown = std::current_exception();
            return DPMRT_ERROR_ENGINE;
        }
    }

    static int tell(void *user, const dpmrt_progress *progress) {
        auto *told = static_cast<Told *>(user);
        try {
            return (*told->progress)(*progress) ? 0 : 1;
        } catch (...) {
            told->thrown = std::current_exception();
            return 1;
        }
    }

    struct Free {
        void operator()(dpmrt_session *session) const { dpmrt_session_free(session); }
    };

    std::unique_ptr<Owned> network_;
    std::size_t size_ = 0;
    std::unique_ptr<dpmrt_session, Free> session_;
};

}  // namespace dpmrt
