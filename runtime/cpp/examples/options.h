// The command line of the sampler.
#pragma once

#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "dpmrt/dpmrt.h"

constexpr char kHelp[] = R"(usage: dpmrt_sample BUNDLE --plan FILE -o OUT.png [options]

Samples from BUNDLE, a folder that `dpmrt export` wrote, by a plan that `dpmrt sample --save-plan` wrote.

  -o, --out FILE              the picture to write, .png
      --plan FILE             the step file to follow
  -n, --batch N               how many samples  [default: as many as labels]
      --seed N                seed of the noise, as torch's CPU generator  [default: 0]
      --label LIST            a class, a list to cycle as 0,1,2, or `all`  [default: no class]
      --guidance LIST         scale of classifier-free guidance, or a list to cycle  [default: the bundle's]
      --guidance-rescale R    0 to 1: bring each sample's deviation back so far
      --guidance-interval A,B guide only there; elsewhere the scale is 1
      --guidance-unit UNIT    what the interval counts: progress, time or sigma  [default: progress]
      --guidance-schedule S   linear or cosine: rise from 1 to the scale
      --shape SIZES           shape of one sample, as 1,16,16  [default: the bundle's]
      --grid N                pictures in a row of the sheet  [default: near to a square]
      --scale N               how often a pixel is repeated  [default: so that a side has 64]
      --threads N             threads inside one operator  [default: as ONNX Runtime thinks]
  -q, --quiet                 say nothing but errors
  -h, --help                  show this

Examples:
  dpmrt sample digits --steps 20 -o check.png --save-plan digits.steps
  dpmrt_sample engines/digits --plan digits.steps -o digits.png -n 16
  dpmrt_sample engines/digits --plan digits.steps -o classes.png --label all --guidance 2 --seed 1
)";

// What is wrong with the command line.
struct UsageError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Options {
    std::string bundle, out, plan;
    std::size_t batch = 0;
    std::uint64_t seed = 0;
    bool all_labels = false;
    std::vector<std::int64_t> labels;
    std::vector<double> guidance;
    double rescale = 0;
    std::vector<double> interval;
    int unit = DPMRT_UNIT_PROGRESS;
    int schedule = DPMRT_SCHEDULE_CONSTANT;
    std::vector<std::int64_t> shape;
    std::size_t grid = 0;
    std::size_t scale = 0;
    int threads = 0;
    bool quiet = false;
    bool help = false;
};

class Parser {
public:
    Parser(int argc, char **argv) : words_(argv + 1, argv + argc) {}

    Options parse() {
        while (at_ < words_.size()) {
            const std::string word = words_[at_++];
            if (word.size() > 1 && word[0] == '-') {
                flag(word);
            } else if (made_.bundle.empty()) {
                made_.bundle = word;
            } else {
                throw UsageError("there is one bundle too many: " + word);
            }
        }
        if (made_.help) return made_;
        if (made_.bundle.empty()) throw UsageError("the bundle is missing");
        if (made_.plan.empty()) throw UsageError("--plan is missing");
        if (made_.out.empty()) throw UsageError("-o is missing");
        if (made_.out.size() < 4 || made_.out.substr(made_.out.size() - 4) != ".png") {
            throw UsageError("the picture has to be a .png: " + made_.out);
        }
        return made_;
    }

private:
    void flag(const std::string &name) {
        if (name == "-h" || name == "--help") {
            made_.help = true;
        } else if (name == "-q" || name == "--quiet") {
            made_.quiet = true;
        } else if (name == "-o" || name == "--out") {
            made_.out = value(name);
        } else if (name == "--plan") {
            made_.plan = value(name);
        } else if (name == "-n" || name == "--batch") {
            made_.batch = static_cast<std::size_t>(whole(name, value(name), 1, 1 << 20));
        } else if (name == "--seed") {
            made_.seed = static_cast<std::uint64_t>(whole(name, value(name), 0, INT64_MAX));
        } else if (name == "--label") {
            labels(value(name));
        } else if (name == "--guidance") {
            made_.guidance = reals(name, value(name));
        } else if (name == "--guidance-rescale") {
            made_.rescale = real(name, value(name));
        } else if (name == "--guidance-interval") {
            made_.interval = reals(name, value(name));
            if (made_.interval.size() != 2) throw UsageError(name + " takes two numbers, as 0.2,0.8");
        } else if (name == "--guidance-unit") {
            made_.unit = one_of(name, {"progress", "time", "sigma"});
        } else if (name == "--guidance-schedule") {
            made_.schedule = 1 + one_of(name, {"linear", "cosine"});
        } else if (name == "--shape") {
            for (const std::string &part : split(value(name))) made_.shape.push_back(whole(name, part, 1, 1 << 20));
        } else if (name == "--grid") {
            made_.grid = static_cast<std::size_t>(whole(name, value(name), 1, 1 << 20));
        } else if (name == "--scale") {
            made_.scale = static_cast<std::size_t>(whole(name, value(name), 1, 1 << 20));
        } else if (name == "--threads") {
            made_.threads = static_cast<int>(whole(name, value(name), 1, 1024));
        } else {
            throw UsageError("there is no option " + name);
        }
    }

    std::string value(const std::string &name) {
        if (at_ == words_.size()) throw UsageError(name + " needs a value");
        return words_[at_++];
    }

    static std::vector<std::string> split(const std::string &text) {
        std::vector<std::string> parts;
        for (std::size_t at = 0; at <= text.size();) {
            const std::size_t end = std::min(text.find(',', at), text.size());
            parts.push_back(text.substr(at, end - at));
            at = end + 1;
        }
        return parts;
    }

    static std::int64_t whole(const std::string &name, const std::string &text, std::int64_t low, std::int64_t high) {
        char *end = nullptr;
        errno = 0;
        const long long number = std::strtoll(text.c_str(), &end, 10);
        if (text.empty() || *end != '\0' || errno != 0 || number < low || number > high) {
            throw UsageError(name + " is no whole number from " + std::to_string(low) + " to " + std::to_string(high) + ": " +
                             text);
        }
        return number;
    }

    static double real(const std::string &name, const std::string &text) {
        char *end = nullptr;
        const double number = std::strtod(text.c_str(), &end);
        if (text.empty() || *end != '\0' || std::isnan(number)) throw UsageError(name + " is no number: " + text);
        return number;
    }

    static std::vector<double> reals(const std::string &name, const std::string &text) {
        std::vector<double> numbers;
        for (const std::string &part : split(text)) numbers.push_back(real(name, part));
        return numbers;
    }

    int one_of(const std::string &name, const std::vector<std::string> &known) {
        const std::string given = value(name);
        std::string all;
        for (std::size_t k = 0; k < known.size(); ++k) {
            if (given == known[k]) return static_cast<int>(k);
            all += (k == 0 ? "" : ", ") + known[k];
        }
        throw UsageError(name + " is one of " + all + ": " + given);
    }

    void labels(const std::string &text) {
        made_.all_labels = text == "all";
        if (made_.all_labels) return;
        for (const std::string &part : split(text)) made_.labels.push_back(whole("--label", part, INT64_MIN, INT64_MAX));
    }

    std::vector<std::string> words_;
    std::size_t at_ = 0;
    Options made_;
};
