// The network as the executor sees it: an engine bound to the session's buffers, with guidance settled behind one call.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "buffer.h"
#include "dpmrt/dpmrt.h"
#include "failure.h"
#include "guidance.h"
#include "plan.h"

namespace dpmrt_core {

// Where in a run something went wrong, for an error.
std::string where(std::size_t call, std::size_t calls, double t);

// What a callback said, or else the name of its status.
Failure callback_failed(dpmrt_status status, const char *what, const dpmrt_error &error);

// Says that a score or a noise sets no Langevin step: its norm is zero, or beyond what numbers hold.
[[noreturn]] void langevin_failed(const std::string &place);

// Unguided, the engine reads the executor's state and writes into its slots. Guided, it runs once on a doubled batch,
// whose first half is conditioned and whose second is not; where a call's scales are all 1, on the first half alone if the
// session asked for that.
class NetworkCall {
public:
    NetworkCall(const Plan &plan, const dpmrt_engine &engine, const dpmrt_session_params &params, const void *input,
                std::vector<void *> slots);
    NetworkCall(const NetworkCall &) = delete;
    NetworkCall &operator=(const NetworkCall &) = delete;
    ~NetworkCall();

    // Guidance of the run that begins.
    void begin(const dpmrt_guidance &guidance);
    // Runs the network at call number `index` and puts its output, or the first part of it, into slot `out`.
    void call(std::size_t index, std::size_t out);

    // The second part of the first sample's output, and the others' at a pitch of two samples; NULL where there is none.
    const void *second() const { return parts_ == 2 ? whole_ + sample_ : nullptr; }
    const std::vector<double> &times() const { return times_; }

private:
    struct Binding {
        dpmrt_binding binding{};
        std::vector<std::size_t> shape;
        void *bound = nullptr;
        bool is_bound = false;
    };

    void bind(Binding &made, std::size_t halves, bool guided);
    void unbind(const Binding &binding) const;
    void run(const Binding &binding, std::size_t index, std::size_t out) const;
    void take(std::size_t out) const;
    double scale(std::size_t index, std::size_t sample) const;
    template <class Real>
    void combine(std::size_t index, std::size_t out) const;

    dpmrt_engine engine_;
    std::vector<std::size_t> shape_;
    dpmrt_dtype dtype_;
    std::size_t parts_;
    bool guided_;
    std::size_t count_ = 1;   // numbers of a sample
    std::size_t sample_ = 0;  // bytes of a sample
    std::size_t size_ = 0;    // bytes of the state
    const void *input_;
    std::vector<void *> slots_;
    std::vector<double> times_, ratios_;
    Buffer doubled_memory_, whole_memory_;
    char *doubled_ = nullptr;
    char *whole_ = nullptr;  // an output of two parts, or of a doubled batch
    std::vector<void *> outputs_;
    Binding main_, alone_;
    dpmrt_guidance guidance_{};
};

}  // namespace dpmrt_core
