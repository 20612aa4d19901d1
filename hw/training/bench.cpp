// The bench around the compiled gateware that trains: a host that follows a script.
//
// usage: bench INPUT OUTPUT
// INPUT is 32-bit words: the orders of hw/training/script.py, each with what belongs to it. OUTPUT is the words that answer them.
// It ends with STOPPED when the machine does.
// On standard output: the number of cycles so far, now and then.
// hw/training/simulate.py writes, runs and reads all this; its `follow` does the same in Python.

#include <cstdint>
#include <fstream>
#include <iostream>
#include <iterator>
#include <vector>

#include "Vtrainer.h"
#include "verilated.h"

constexpr uint64_t GLANCE_CYCLES = 1 << 18;
constexpr int STOPPED = 3;
enum Order : uint32_t { WRITE, READ, IMAGE, CYCLES };

int main(int count, char** names) {
    if (count != 3) {
        std::cerr << "usage: bench INPUT OUTPUT\n";
        return 2;
    }
    std::ifstream input(names[1], std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(input), {}};
    const uint32_t* at = reinterpret_cast<const uint32_t*>(bytes.data());
    const uint32_t* const end = at + bytes.size() / 4;
    std::vector<uint32_t> answers;

    VerilatedContext context;
    Vtrainer top(&context);
    uint64_t now = 0;
    const auto settle = [&] {
        top.clk = 0;
        top.eval();
    };
    const auto rise = [&] {
        top.clk = 1;
        top.eval();
        if (++now % GLANCE_CYCLES == 0) std::cout << now << std::endl;
    };
    const auto tick = [&] {
        settle();
        rise();
    };
    // A cycle at a time, until one in which a port was high; a machine that has stopped is no longer waited for.
    const auto until = [&](const uint8_t& port) {
        for (bool passed = false; !passed && !top.error; rise()) {
            settle();
            passed = port;
        }
    };

    settle();
    while (at != end && !top.error) {
        const uint32_t order = *at++;
        while (order != IMAGE && top.busy && !top.error) tick();
        switch (order) {
            case WRITE:
                top.host_part = *at++;
                top.host_address = *at++;
                top.host_written = *at++;
                top.host_en = 1;
                tick();
                top.host_en = 0;
                break;
            case READ:
                top.host_part = *at++;
                top.host_address = *at++;
                for (int cycle = 0; cycle < HOST_CYCLES; cycle++) tick();
                answers.push_back(top.host_word);
                break;
            case IMAGE: {
                const uint32_t label = *at++, last = *at++, pixels = *at++;
                top.label_payload = label | last << 8;
                top.label_valid = 1;
                until(top.label_ready);
                top.label_valid = 0;
                top.image_valid = 1;
                for (uint32_t pixel = 0; pixel < pixels; pixel++) {
                    top.image_payload = *at++;
                    until(top.image_ready);
                }
                top.image_valid = 0;
                top.loss_ready = 1;
                uint32_t loss = 0;
                for (bool told = false; !told && !top.error; rise()) {
                    settle();
                    told = top.loss_valid;
                    loss = top.loss_payload;
                }
                top.loss_ready = 0;
                answers.push_back(loss);
                break;
            }
            case CYCLES:
                answers.push_back(top.cycles);
                break;
            default:
                std::cerr << "there is no order " << order << '\n';
                return 2;
        }
    }
    if (top.error) return STOPPED;
    std::ofstream(names[2], std::ios::binary).write(reinterpret_cast<const char*>(answers.data()), std::streamsize(4 * answers.size()));
    return 0;
}
