// The TensorRT adapter on stand-ins for CUDA and TensorRT: a bundle's engine, found, loaded and sampled from. Prints what
// is refused, or how far the sample is from Python's.
#include "dpmrt/tensorrt.h"

#include "cases.h"
#include "cuda/fake.h"

int main(int argc, char **argv) {
    REQUIRE(argc == 3);
    const Case one = CaseReader(argv[2]).read();
    dpmrt_error error;
    dpmrt_bundle *bundle = nullptr;
    require_ok(dpmrt_bundle_open(argv[1], &bundle, &error), error);
    dpmrt_plan *plan = plan_of(one);
    dpmrt_session_params params = one.params();
    dpmrt_tensorrt_session *session = nullptr, *guided = nullptr;
    const dpmrt_status status = dpmrt_tensorrt_session_create(bundle, nullptr, plan, &params, &session, &error);
    params.guided = 1;
    if (status == DPMRT_OK) {
        require_ok(dpmrt_tensorrt_session_create(bundle, nullptr, plan, &params, &guided, &error), error);
    }
    dpmrt_tensorrt_session *huge = nullptr;
    dpmrt_error too_large;
    params.shape[0] = std::size_t{1} << 40U;
    REQUIRE(dpmrt_tensorrt_session_create(bundle, nullptr, plan, &params, &huge, &too_large) == DPMRT_ERROR_SHAPE);
    REQUIRE(huge == nullptr);
    REQUIRE(std::strstr(too_large.text, "got:      1099511627776\n  expected: 1073741823 at most") != nullptr);
    dpmrt_plan_free(plan);
    dpmrt_bundle_free(bundle);
    if (status != DPMRT_OK) {
        std::printf("%s\n%s\n", dpmrt_status_name(status), error.text);
        REQUIRE(session == nullptr && fake::counts().allocated == 0);
        return 0;
    }
    dpmrt_run_params run = dpmrt_run_default_params();
    Recorded recorded{&one};
    const auto x_T = one.typed(one.x_T);
    run.x_T = x_T.data();
    run.noise = Recorded::give;
    run.noise_user = &recorded;
    std::vector<std::uint8_t> out(x_T.size()), first;
    for (int again = 0; again < 3; ++again) {
        recorded.draw = 0;
        REQUIRE(dpmrt_tensorrt_session_captured(session) == (again == 2 ? 1 : 0));
        require_ok(dpmrt_tensorrt_session_run(session, &run, out.data(), &error), error);
        if (again == 0) first = out;
        REQUIRE(out == first);
    }
    const double apart = distance(one.wide(out), one.expected);
    // A captured trajectory serves every label.
    const std::vector<std::int64_t> labels(one.shape[0], 3);
    REQUIRE(dpmrt_tensorrt_session_condition(session, "text", labels.data(), 8, &error) == DPMRT_ERROR_ARGUMENT);
    REQUIRE(dpmrt_tensorrt_session_condition(session, "class_labels", labels.data(), 1, &error) == DPMRT_ERROR_SHAPE);
    require_ok(dpmrt_tensorrt_session_condition(session, "class_labels", labels.data(), 8 * labels.size(), &error), error);
    recorded.draw = 0;
    require_ok(dpmrt_tensorrt_session_run(session, &run, out.data(), &error), error);
    REQUIRE(out != first && dpmrt_tensorrt_session_captured(session) == 1);
    first = out;
    run.guidance.scale = 3;
    recorded.draw = 0;
    REQUIRE(dpmrt_tensorrt_session_run(session, &run, out.data(), &error) == DPMRT_ERROR_ARGUMENT);
    REQUIRE(std::strstr(error.text, "a session that was made without it") != nullptr);
    // This network adds its label, so that guidance to 1 from 0 by 3 is as good as the label 3.
    std::vector<std::int64_t> halves(2 * one.shape[0], 0);
    std::fill_n(halves.begin(), one.shape[0], 1);
    require_ok(dpmrt_tensorrt_session_condition(guided, "class_labels", halves.data(), 8 * halves.size(), &error), error);
    recorded.draw = 0;
    require_ok(dpmrt_tensorrt_session_run(guided, &run, out.data(), &error), error);
    REQUIRE(distance(one.wide(out), one.wide(first)) < 1e-5);
    dpmrt_tensorrt_session_free(guided);
    dpmrt_tensorrt_session_free(session);
    REQUIRE(fake::counts().allocated == 0);
    std::printf("%s %.1e\n", apart <= 2e-6 ? "ok" : "OFF", apart);
    return apart <= 2e-6 ? 0 : 1;
}
