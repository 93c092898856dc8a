#include "executor.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "../composition.h"
#include "../guidance.h"
#include "../network_call.h"
#include "../noise.h"
#include "guiding.h"
#include "kernels.h"
#include "measuring.h"
#include "memory.h"

namespace dpmrt_core::device {
namespace {

// Rows begin at multiples of this, as TensorRT and wide loads want it.
constexpr std::size_t kAlign = 256;

template <class Real>
class Bound final : public Executor {
public:
    Bound(std::shared_ptr<const Plan> plan, Network &network, const dpmrt_session_params &params)
        : plan_(std::move(plan)), network_(network), layout_(Layout::of(*plan_)) {
        Binding binding{sizeof(Real) == sizeof(float) ? DPMRT_FLOAT32 : DPMRT_FLOAT64,
                        {params.shape, params.shape + params.rank}, plan_->parts, nullptr, {}, {}, stream_.get()};
        measure(binding.shape, params.guided != 0);
        std::vector<double> ratios;
        for (std::size_t k = 0; k < plan_->rows(); ++k) {
            if (plan_->out[k] < 0) continue;
            binding.times.push_back(plan_->t[k]);
            ratios.push_back(plan_->sigma[k] / plan_->alpha[k]);
        }
        if (params.guided != 0) {
            const auto parts = static_cast<std::size_t>(plan_->parts);
            guiding_.emplace(binding.shape[0], sample_, parts, binding.times, std::move(ratios));
            binding.shape[0] *= 2;
        }
        allocate();
        binding.input = guiding_ ? guiding_->input() : row(layout_.input);
        for (const std::size_t slot : layout_.slots) binding.outputs.push_back(whole_.data() != nullptr ? whole_.data() : row(slot));
        network_.bind(binding);
        write_script();
    }

    bool captured() const override { return trajectory_.captured(); }

    void run(const dpmrt_run_params &params, void *out) override {
        TorchNoise stream(params.seed);
        // An error that the application left is none of this run.
        static_cast<void>(cudaGetLastError());
        // Before anything is enqueued: what cannot be honoured leaves the session as it was.
        if (!guiding_) check_guidance(params.guidance, false, 0, 0);
        if (guiding_ && !guiding_->begin(params.guidance, stream_.get())) trajectory_.forget();
        try {
            begin(params, stream);
            if (params.progress == nullptr) {
                trajectory_.run(stream_, [this] { enqueue(nullptr); });
            } else {
                enqueue(&params);
            }
            finish();
            check(cudaMemcpyAsync(out, row(layout_.state), size_ * sizeof(Real), cudaMemcpyDeviceToHost, stream_.get()),
                  "copying the result");
            stream_.wait();
        } catch (...) {
            // What was enqueued before the failure may still be running.
            static_cast<void>(cudaStreamSynchronize(stream_.get()));
            static_cast<void>(cudaGetLastError());
            unfinished_ = true;
            throw;
        }
    }

private:
    struct Row {
        Step step;
        std::optional<Update<Real>> before;
        std::optional<Threshold<Real>> threshold;
        std::optional<Learned<Real>> learned;
        std::optional<LangevinStep<Real>> langevin;
        Update<Real> after;
        std::size_t calls;
    };

    void measure(const std::vector<std::size_t> &shape, bool guided) {
        const std::size_t most = std::numeric_limits<std::ptrdiff_t>::max() / sizeof(Real) / 1024 / (guided ? 2 : 1);
        size_ = 1;
        for (const std::size_t side : shape) {
            if (side == 0 || side > most / size_) {
                throw Failure(DPMRT_ERROR_SHAPE, "a side of the shape is out of range", format("%zu", side),
                              "1 or more, and a product that memory can hold");
            }
            size_ *= side;
        }
        sample_ = size_ / shape[0];
        const std::size_t line = kAlign / sizeof(Real);
        pitch_ = (size_ + line - 1) / line * line;
    }

    void allocate() {
        rows_ = Memory(layout_.count * pitch_ * sizeof(Real));
        flags_ = Memory(plan_->rows() * sizeof(std::uint32_t));
        host_flags_.resize(plan_->rows());
        noise_ = Memory(plan_->draws() * pitch_ * sizeof(Real));
        host_noise_.resize(plan_->draws() * pitch_);
        host_state_.resize(size_);
        single_.resize(sizeof(Real) == sizeof(float) ? 0 : size_);
        const std::size_t halves = guiding_ ? guiding_->output_size() : plan_->parts == 2 ? 2 * size_ : 0;
        whole_ = Memory(halves * sizeof(Real));
        measuring_ = Measuring<Real>(*plan_, size_ / sample_, sample_);
    }

    Real *row(std::size_t index) const { return static_cast<Real *>(rows_.data()) + index * pitch_; }
    std::uint32_t *flag(std::size_t index) const { return static_cast<std::uint32_t *>(flags_.data()) + index; }

    // `noise` is where the noise of this row lies, if it has any.
    Update<Real> update(const dpmrt_core::Update &given, std::size_t index, const Real *noise, const Step *step) const {
        Update<Real> made{};
        if (given.targets.size() > kMostTargets || given.sources.size() > kMostSources) {
            throw Failure(DPMRT_ERROR_ARGUMENT, "a row of the plan is too wide for the device",
                          format("%zu rows to read", given.sources.size()), format("at most %zu", kMostSources),
                          "run it on the host");
        }
        std::vector<std::size_t> order(given.targets.size());
        for (std::size_t k = 0; k < order.size(); ++k) order[k] = k;
        // The kernel looks at its first target.
        std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
            return (given.targets[a] == layout_.state) && given.targets[b] != layout_.state;
        });
        made.target_count = static_cast<unsigned>(order.size());
        made.source_count = static_cast<unsigned>(given.sources.size());
        for (std::size_t k = 0; k < order.size(); ++k) {
            made.targets[k] = row(given.targets[order[k]]);
            for (std::size_t j = 0; j < given.sources.size(); ++j) {
                made.weights[k * given.sources.size() + j] =
                    static_cast<Real>(given.weights[order[k] * given.sources.size() + j]);
            }
        }
        for (std::size_t j = 0; j < given.sources.size(); ++j) {
            const std::size_t source = given.sources[j];
            const bool is_noise = layout_.noise && source == *layout_.noise;
            made.sources[j] = is_noise && noise != nullptr ? noise : row(source);
            if (step == nullptr) continue;
            if (source == layout_.state) made.kinds[j] = kBadState;
            if (is_noise && step->noisy) made.kinds[j] = kBadNoise;
            const bool written = step->out >= 0 && (source == layout_.slots[static_cast<std::size_t>(step->out)] ||
                                                    source == layout_.slots[step->slot]);
            if (written) made.kinds[j] = kBadNetwork;
        }
        if (step != nullptr && given.targets[order[0]] == layout_.state) made.kind = kBadState;
        made.flag = flag(index);
        made.packs = static_cast<long long>(pitch_ * sizeof(Real) / kPackBytes);
        return made;
    }

    void write_script() {
        Script script = compose(*plan_, layout_);
        if (script.prologue) prologue_.emplace(update(*script.prologue, 0, nullptr, nullptr));
        std::size_t calls = 0;
        std::size_t draws = 0;
        for (std::size_t k = 0; k < script.steps.size(); ++k) {
            Step &step = script.steps[k];
            Row made{};
            const Real *noise = nullptr;
            if (step.noisy) {
                noise = static_cast<const Real *>(noise_.data()) + draws++ * pitch_;
                // Noise that an instruction scales is read from where that puts it.
                if (step.noise_instruction && scale_noise(*step.noise_instruction, step, noise, k, made)) noise = nullptr;
            }
            if (step.before) made.before.emplace(update(*step.before, k, nullptr, nullptr));
            const auto *dynamic = step.instruction ? std::get_if<DynamicThreshold>(&*step.instruction) : nullptr;
            if (dynamic != nullptr) made.threshold = measuring_.threshold(*dynamic, row(layout_.slots[step.slot]), flag(k));
            made.after = update(step.after, k, noise, &step);
            made.calls = calls;
            calls += step.out >= 0 ? 1U : 0U;
            made.step = std::move(step);
            script_.push_back(std::move(made));
        }
    }

    // Says whether there is a kernel that scales the noise of this row.
    bool scale_noise(const Instruction &instruction, const Step &step, const Real *noise, std::size_t index, Row &made) const {
        if (const auto *langevin = std::get_if<Langevin>(&instruction)) {
            made.langevin = measuring_.langevin(*langevin, row(layout_.slots[step.slot]), noise, row(*layout_.noise), flag(index));
            return true;
        }
        if (plan_->parts == 2) made.learned = learned_of(instruction, noise, index);
        return made.learned.has_value();
    }

    std::optional<Learned<Real>> learned_of(const Instruction &instruction, const Real *noise, std::size_t index) const {
        Learned<Real> made{};
        if (const auto *range = std::get_if<LearnedRange>(&instruction)) {
            const double half = (range->log_large - range->log_small) / 4;
            made.half = static_cast<Real>(half);
            made.shift = static_cast<Real>(half + range->log_small / 2);
        } else if (std::holds_alternative<LearnedVariance>(instruction)) {
            made.variance = true;
        } else {
            return std::nullopt;
        }
        made.second = static_cast<const Real *>(whole_.data()) + sample_;
        made.from = noise;
        made.to = row(*layout_.noise);
        made.flag = flag(index);
        made.count = static_cast<long long>(size_);
        made.sample = static_cast<long long>(sample_);
        made.pitch = 2 * made.sample;
        return made;
    }

    void begin(const dpmrt_run_params &params, TorchNoise &stream) {
        if (unfinished_) {
            // A run that failed may have left NaN in a slot, which a weight of zero would not remove.
            check(cudaMemsetAsync(rows_.data(), 0, rows_.size(), stream_.get()), "clearing");
            trajectory_.forget();
            unfinished_ = false;
        }
        const void *given = params.start != nullptr ? params.start : params.x_T;
        if (given != nullptr) {
            std::memcpy(host_state_.data(), given, size_ * sizeof(Real));
        } else {
            normal(stream, host_state_.data());
        }
        const auto scale = static_cast<Real>(params.start != nullptr ? 1 : plan_->init_scale);
        for (std::size_t k = 0; k < size_; ++k) {
            host_state_[k] *= scale;
            if (std::isfinite(host_state_[k])) continue;
            throw Failure(DPMRT_ERROR_NONFINITE, "the initial state holds NaN or infinity",
                          format("%g at position %zu", static_cast<double>(host_state_[k]), k), "finite numbers");
        }
        upload(row(layout_.state), host_state_.data(), size_);
        draw(params, stream);
    }

    void normal(TorchNoise &stream, Real *into) {
        if constexpr (sizeof(Real) == sizeof(float)) {
            stream.normal(into, size_);
        } else {
            stream.normal(single_.data(), size_);
            std::copy_n(single_.data(), size_, into);
        }
    }

    // All noise of the run, in the plan's order.
    void draw(const dpmrt_run_params &params, TorchNoise &stream) {
        Real *into = host_noise_.data();
        for (const Row &one : script_) {
            if (!one.step.noisy) continue;
            if (params.noise == nullptr) {
                normal(stream, into);
            } else {
                dpmrt_error error{};
                const dpmrt_status status =
                    params.noise(params.noise_user, into, size_, one.step.span.state, one.step.span.other, &error);
                if (status != DPMRT_OK) {
                    throw Failure(DPMRT_ERROR_NOISE, callback_failed(status, "the noise callback failed", error).what(), {},
                                  where(one.calls + 1, plan_->calls(), one.step.t));
                }
            }
            into += pitch_;
        }
        if (!host_noise_.empty()) upload(noise_.data(), host_noise_.data(), host_noise_.size());
    }

    void upload(void *to, const Real *from, std::size_t count) {
        check(cudaMemcpyAsync(to, from, count * sizeof(Real), cudaMemcpyHostToDevice, stream_.get()), "copying to the device");
    }

    void enqueue(const dpmrt_run_params *told) {
        const cudaStream_t stream = stream_.get();
        check(cudaMemsetAsync(flags_.data(), 0, flags_.size(), stream), "clearing");
        if (prologue_) check(enqueue_update(*prologue_, stream), "a row");
        for (const Row &one : script_) {
            const Step &step = one.step;
            if (step.out >= 0) call(one.calls, static_cast<std::size_t>(step.out));
            if (one.before) check(enqueue_update(*one.before, stream), "a row");
            if (one.threshold) {
                check(enqueue_threshold(*one.threshold, stream), "a threshold");
            } else if (step.instruction) {
                const auto limit = static_cast<Real>(std::get<Clip>(*step.instruction).limit);
                check(enqueue_clip(row(layout_.slots[step.slot]), static_cast<long long>(size_), limit, stream), "a clip");
            }
            if (one.learned) check(enqueue_learned(*one.learned, stream), "a variance");
            if (one.langevin) check(enqueue_langevin(*one.langevin, stream), "a Langevin step");
            check(enqueue_update(one.after, stream), "a row");
            if (told != nullptr && step.out >= 0) tell(*told, one);
        }
    }

    void call(std::size_t index, std::size_t out) {
        const cudaStream_t stream = stream_.get();
        const auto *whole = static_cast<const Real *>(whole_.data());
        Real *slot = row(layout_.slots[out]);
        if (guiding_) guiding_->enqueue_input(row(layout_.input), stream);
        network_.enqueue(index, out);
        if (guiding_) {
            guiding_->enqueue_output(index, whole, slot, stream);
        } else if (whole != nullptr) {
            check(enqueue_first(whole, slot, static_cast<long long>(size_), static_cast<long long>(sample_), stream), "a row");
        }
    }

    void tell(const dpmrt_run_params &params, const Row &one) {
        finish();
        check(cudaMemcpyAsync(host_state_.data(), row(layout_.state), size_ * sizeof(Real), cudaMemcpyDeviceToHost,
                              stream_.get()), "copying the state");
        stream_.wait();
        const dpmrt_progress progress{one.calls + 1, plan_->calls(), one.step.t, host_state_.data()};
        if (params.progress(params.progress_user, &progress) != 0) {
            throw Failure(DPMRT_CANCELLED, "sampling was cancelled by its callback",
                          format("after call %zu of %zu", one.calls + 1, plan_->calls()));
        }
    }

    // Waits for what was enqueued, and looks at what was flagged meanwhile.
    void finish() {
        check(cudaMemcpyAsync(host_flags_.data(), flags_.data(), flags_.size(), cudaMemcpyDeviceToHost, stream_.get()),
              "copying the flags");
        stream_.wait();
        for (std::size_t k = 0; k < host_flags_.size(); ++k) {
            if ((host_flags_[k] & (kBadState | kBadNetwork | kBadNoise | kBadStep)) != 0) explain(script_[k], host_flags_[k]);
        }
    }

    [[noreturn]] void explain(const Row &one, std::uint32_t flags) const {
        const std::string place = where(one.calls + 1, plan_->calls(), one.step.t);
        if ((flags & kBadStep) != 0) langevin_failed(place);
        const char *what = "the state became NaN or infinite";
        const char *fix = "check the network's output range and the prediction type; try more steps or less guidance";
        if ((flags & kBadNetwork) != 0) {
            what = "the network returned NaN or infinity";
            fix = "check the network's precision (half may overflow; try float32), or lower the guidance scale";
        } else if ((flags & kBadSecond) != 0) {
            what = "the second part of the network's output makes no variance";
            fix = "";
        } else if ((flags & kBadNoise) != 0) {
            what = "the noise source gave NaN or infinity";
            fix = "";
        }
        throw Failure(DPMRT_ERROR_NONFINITE, what, place, "finite numbers", fix);
    }

    std::shared_ptr<const Plan> plan_;
    Network &network_;
    Layout layout_;
    Stream stream_;
    std::size_t size_ = 0, sample_ = 0, pitch_ = 0;
    Memory rows_, flags_, noise_;
    Memory whole_;  // an output of two parts, or of two halves
    std::vector<std::uint32_t> host_flags_;
    std::vector<Real> host_noise_, host_state_;
    std::vector<float> single_;
    std::optional<Guiding<Real>> guiding_;
    Measuring<Real> measuring_;
    std::optional<Update<Real>> prologue_;
    std::vector<Row> script_;
    Trajectory trajectory_;
    bool unfinished_ = false;
};

}  // namespace

Network::~Network() = default;
Executor::~Executor() = default;

std::unique_ptr<Executor> Executor::make(std::shared_ptr<const Plan> plan, Network &network,
                                         const dpmrt_session_params &params) {
    if (params.rank < 2 || params.rank > DPMRT_MAX_RANK) {
        throw Failure(DPMRT_ERROR_SHAPE, "the shape needs a batch axis and at least one more",
                      format("rank %zu", params.rank), format("2 to %d", DPMRT_MAX_RANK),
                      "set rank and shape in the session's parameters");
    }
    if (params.guided_alone != 0) {
        throw Failure(DPMRT_ERROR_ARGUMENT, "on the device the network always runs on both halves", "guided_alone",
                      "guided without it: a captured trajectory makes the same calls whatever the scales");
    }
    if (params.dtype == DPMRT_FLOAT32) return std::make_unique<Bound<float>>(std::move(plan), network, params);
    if (params.dtype == DPMRT_FLOAT64) return std::make_unique<Bound<double>>(std::move(plan), network, params);
    throw Failure(DPMRT_ERROR_ARGUMENT, "the state must be float32 or float64", format("dtype %d", params.dtype));
}

}  // namespace dpmrt_core::device
