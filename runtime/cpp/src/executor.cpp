#include "executor.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "composition.h"
#include "instructions.h"
#include "network_call.h"
#include "noise.h"
#include "passes.h"

namespace dpmrt_core {
namespace {

// Rows begin apart from multiples of the cache's period, so that equal offsets do not share its sets.
constexpr std::size_t kSetApart = 5;

template <class Real>
class Bound final : public Executor {
public:
    Bound(std::shared_ptr<const Plan> plan, const dpmrt_engine &engine, const dpmrt_session_params &params)
        : plan_(std::move(plan)), shape_(params.shape, params.shape + params.rank) {
        sizes(params.guided != 0);
        const Layout layout = Layout::of(*plan_);
        allocate(params.allocator, layout);
        const auto pass = [&](const Update &update) { return Pass<Real>(update, rows_, pitch_, size_, layout.state); };
        Script script = compose(*plan_, layout);
        if (script.prologue) prologue_.emplace(pass(*script.prologue));
        for (Step &step : script.steps) {
            Pass<Real> after = pass(step.after);
            std::optional<Pass<Real>> before;
            if (step.before) before.emplace(pass(*step.before));
            script_.push_back({std::move(step), std::move(before), std::move(after)});
        }
        network_.emplace(*plan_, engine, params, rows_ + layout.input * pitch_,
                         std::vector<void *>(slots_.begin(), slots_.end()));
    }

    Bound(const Bound &) = delete;
    Bound &operator=(const Bound &) = delete;

    void run(const dpmrt_run_params &params, void *out) override {
        TorchNoise stream(params.seed);
        network_->begin(params.guidance);
        begin(params, stream);
        if (prologue_) prologue_->apply();
        std::size_t calls = 0;
        for (const Row &row : script_) {
            const Step &step = row.step;
            if (step.out >= 0) network_->call(calls, static_cast<std::size_t>(step.out));
            if (row.before) {
                row.before->apply();
                if (step.instruction) {
                    apply_to_quantity(*step.instruction, slots_[step.slot], shape_[0], sample_, scratch_);
                }
            }
            if (step.noisy) draw(params, stream, step, calls);
            if (!row.after.apply()) explain(step, calls);
            if (step.out >= 0) {
                ++calls;
                tell(params, calls, step.t);
            }
        }
        clean_ = true;
        std::memcpy(out, state_, size_ * sizeof(Real));
    }

private:
    struct Row {
        Step step;
        std::optional<Pass<Real>> before;
        Pass<Real> after;
    };

    void sizes(bool guided) {
        size_ = 1;
        const std::size_t most = std::numeric_limits<std::ptrdiff_t>::max() / sizeof(Real) / 64 / (guided ? 2 : 1);
        for (const std::size_t side : shape_) {
            if (side == 0 || side > most / size_) {
                fail(DPMRT_ERROR_SHAPE, "a side of the shape is out of range", format("%zu", side),
                     "1 or more, and a product that memory can hold");
            }
            size_ *= side;
        }
        sample_ = size_ / shape_[0];
    }

    void allocate(const dpmrt_allocator &allocator, const Layout &layout) {
        const std::size_t line = kAlignment / sizeof(Real);
        pitch_ = (size_ + line - 1) / line * line + kSetApart * line;
        memory_ = Buffer(allocator, layout.count * pitch_ * sizeof(Real));
        rows_ = static_cast<Real *>(memory_.data());
        state_ = rows_ + layout.state * pitch_;
        for (const std::size_t row : layout.slots) slots_.push_back(rows_ + row * pitch_);
        z_ = layout.noise ? rows_ + *layout.noise * pitch_ : nullptr;
        scratch_memory_ = Buffer(allocator, scratch_size(*plan_, sample_) * sizeof(Real));
        scratch_ = static_cast<Real *>(scratch_memory_.data());
        // The generator gives single precision.
        if (sizeof(Real) != sizeof(float)) single_memory_ = Buffer(allocator, size_ * sizeof(float));
    }

    void begin(const dpmrt_run_params &params, TorchNoise &stream) {
        // A run that failed may have left NaN in a slot, which a weight of zero would not remove.
        if (!clean_) std::memset(memory_.data(), 0, memory_.size());
        clean_ = false;
        const void *given = params.start != nullptr ? params.start : params.x_T;
        if (given == nullptr) normal(stream, state_);
        const Real *from = given != nullptr ? static_cast<const Real *>(given) : state_;
        const auto scale = static_cast<Real>(params.start != nullptr ? 1 : plan_->init_scale);
        if (scale_into(state_, from, scale, size_)) return;
        const Real *end = state_ + size_;
        const Real *bad = std::find_if(static_cast<const Real *>(state_), end, [](Real x) { return !std::isfinite(x); });
        fail(DPMRT_ERROR_NONFINITE, "the initial state holds NaN or infinity",
             format("%g at position %td", static_cast<double>(*bad), bad - state_), "finite numbers");
    }

    void normal(TorchNoise &stream, Real *into) {
        if constexpr (sizeof(Real) == sizeof(float)) {
            stream.normal(into, size_);
        } else {
            auto *single = static_cast<float *>(single_memory_.data());
            stream.normal(single, size_);
            std::copy_n(single, size_, into);
        }
    }

    void draw(const dpmrt_run_params &params, TorchNoise &stream, const Step &step, std::size_t calls) {
        if (params.noise == nullptr) {
            normal(stream, z_);
        } else {
            dpmrt_error error{};
            const dpmrt_status status =
                params.noise(params.noise_user, z_, size_, step.span.state, step.span.other, &error);
            if (status != DPMRT_OK) {
                fail(DPMRT_ERROR_NOISE, callback_failed(status, "the noise callback failed", error).what(), {},
                     where(calls + 1, network_->times().size(), step.t));
            }
        }
        if (!step.noise_instruction) return;
        if (const auto *langevin = std::get_if<Langevin>(&*step.noise_instruction)) {
            if (apply_langevin(*langevin, slots_[step.slot], z_, shape_[0], sample_)) return;
            if (!finite(slots_[step.slot], size_) || !finite(z_, size_)) explain(step, calls);
            langevin_failed(where(calls + 1, network_->times().size(), step.t));
        }
        if (const auto *second = static_cast<const Real *>(network_->second())) {
            apply_to_noise(*step.noise_instruction, z_, second, shape_[0], sample_, 2 * sample_);
        }
    }

    void tell(const dpmrt_run_params &params, std::size_t calls, double t) const {
        if (params.progress == nullptr) return;
        const dpmrt_progress progress{calls, network_->times().size(), t, state_};
        if (params.progress(params.progress_user, &progress) != 0) {
            fail(DPMRT_CANCELLED, "sampling was cancelled by its callback",
                 format("after call %zu of %zu", calls, network_->times().size()));
        }
    }

    static bool finite(const Real *values, std::size_t count) {
        return std::all_of(values, values + count, [](Real value) { return std::isfinite(value); });
    }

    [[noreturn]] void explain(const Step &step, std::size_t calls) const {
        const char *what = "the state became NaN or infinite";
        const char *fix = "check the network's output range and the prediction type; try more steps or less guidance";
        if (step.out >= 0 && !finite(slots_[static_cast<std::size_t>(step.out)], size_)) {
            what = "the network returned NaN or infinity";
            fix = "check the network's precision (half may overflow; try float32), or lower the guidance scale";
        } else if (step.noisy && !finite(z_, size_)) {
            const bool learned = network_->second() != nullptr && step.noise_instruction;
            what = learned ? "the second part of the network's output makes no variance"
                           : "the noise source gave NaN or infinity";
            fix = "";
        }
        fail(DPMRT_ERROR_NONFINITE, what, where(calls + 1, network_->times().size(), step.t), "finite numbers", fix);
    }

    std::shared_ptr<const Plan> plan_;
    std::vector<std::size_t> shape_;
    std::size_t size_ = 0;
    std::size_t sample_ = 0;
    std::size_t pitch_ = 0;
    Buffer memory_, scratch_memory_, single_memory_;
    Real *rows_ = nullptr;
    Real *state_ = nullptr;
    Real *z_ = nullptr;
    Real *scratch_ = nullptr;
    std::vector<Real *> slots_;
    std::optional<Pass<Real>> prologue_;
    std::vector<Row> script_;
    std::optional<NetworkCall> network_;
    bool clean_ = true;
};

}  // namespace

std::unique_ptr<Executor> Executor::make(std::shared_ptr<const Plan> plan, const dpmrt_engine &engine,
                                         const dpmrt_session_params &params) {
    if (engine.run == nullptr) fail(DPMRT_ERROR_ARGUMENT, "the engine has no run callback", "NULL");
    if (params.rank < 2 || params.rank > DPMRT_MAX_RANK) {
        fail(DPMRT_ERROR_SHAPE, "the shape needs a batch axis and at least one more",
             format("rank %zu", params.rank), format("2 to %d", DPMRT_MAX_RANK),
             "set rank and shape in the session's parameters");
    }
    if (params.guided == 0 && params.guided_alone != 0) {
        fail(DPMRT_ERROR_ARGUMENT, "the first half is asked for alone, and there is no other",
             "guided_alone, and not guided", "both", "set `guided` in the session's parameters");
    }
    if (params.allocator.allocate != nullptr && params.allocator.release == nullptr) {
        fail(DPMRT_ERROR_ARGUMENT, "the allocator has no release callback", "NULL");
    }
    if (params.dtype == DPMRT_FLOAT32) return std::make_unique<Bound<float>>(std::move(plan), engine, params);
    if (params.dtype == DPMRT_FLOAT64) return std::make_unique<Bound<double>>(std::move(plan), engine, params);
    fail(DPMRT_ERROR_ARGUMENT, "the state must be float32 or float64", format("dtype %d", params.dtype));
}

}  // namespace dpmrt_core
