// Reads every step file of a folder, and prints what the library says of each: name, status, first line of the text.
#include <string>

#include "cases.h"

int main(int argc, char **argv) {
    REQUIRE(argc == 2);
    for (const auto &entry : std::filesystem::directory_iterator(argv[1])) {
        if (entry.path().extension() != ".steps") continue;
        const std::vector<std::uint8_t> data = read_file(entry.path());
        const std::uint8_t none = 0;
        dpmrt_plan *plan = nullptr;
        dpmrt_error error;
        const dpmrt_status status = dpmrt_plan_read(data.empty() ? &none : data.data(), data.size(), &plan, &error);
        REQUIRE((status == DPMRT_OK) == (plan != nullptr));
        dpmrt_plan_free(plan);
        const std::string text(error.text, std::strcspn(error.text, "\n"));
        std::printf("%s\t%s\t%s\n", entry.path().stem().c_str(), dpmrt_status_name(status), text.c_str());
    }
    return 0;
}
