// The bench around the compiled gateware of one Arch: a host that sends programs and images, a reader of scores, an external memory.
//
// usage: bench INPUT OUTPUT
// INPUT is 32-bit words: the fields of Run, then `pauses` pauses, `parts` lengths, the words of all parts, the words of all images.
// OUTPUT is 32-bit words: the count of cycles when the first batch may begin, then for every batch its scores and the count at its end.
// On standard output: the number of cycles so far, now and then.
// hw/verilate.py writes, runs and reads all this; hw/simulate.py does the same in Python: `serve` and the testbenches of `simulate`.

#include <algorithm>
#include <cstdint>
#include <deque>
#include <fstream>
#include <iostream>
#include <type_traits>
#include <utility>
#include <vector>

#include "Vdatapath.h"
#include "verilated.h"

using Word = std::vector<uint32_t>;

constexpr uint64_t GLANCE_CYCLES = 1 << 20;
constexpr size_t SETTLE_CYCLES = 4;

struct Run {
    uint32_t batches, parts, resident, image_outside, image_first, image_words, score_words;
    uint32_t external_depth, address_bits, latency, pauses;
};

template <class Port>
constexpr size_t chunks_of = (sizeof(Port) + 3) / 4;

template <class Port>
void give(Port& port, const uint32_t* chunks) {
    if constexpr (std::is_integral_v<Port>) {
        uint64_t value = chunks[0];
        if constexpr (chunks_of<Port> > 1) value |= uint64_t(chunks[1]) << 32;
        port = Port(value);
    } else {
        for (size_t chunk = 0; chunk < chunks_of<Port>; chunk++) port[chunk] = chunks[chunk];
    }
}

template <class Port>
Word taken(const Port& port) {
    Word chunks(chunks_of<Port>);
    if constexpr (std::is_integral_v<Port>) {
        for (size_t chunk = 0; chunk < chunks.size(); chunk++) chunks[chunk] = uint32_t(uint64_t(port) >> (32 * chunk));
    } else {
        for (size_t chunk = 0; chunk < chunks.size(); chunk++) chunks[chunk] = port[chunk];
    }
    return chunks;
}

// For how many more cycles a stream's next transfer is kept waiting.
struct Pace {
    const Word& pauses;
    size_t at = 0;
    uint32_t left = pauses[0];
    bool open() const { return left == 0; }
    void tick(bool passed) {
        if (passed)
            left = pauses[++at % pauses.size()];
        else if (left)
            left--;
    }
};

#ifdef EXTERNAL
class External {
public:
    External(const Run& run, const Word& pauses)
        : run(run), words(size_t(run.external_depth) * SIZE), read(pauses), answer(pauses), write(pauses) {}

    void fill(size_t first, const uint32_t* chunks, size_t count) { std::copy(chunks, chunks + count, &words[first * SIZE]); }

    // Before the clock falls: what the memory offers in this cycle.
    void before(Vdatapath& top) {
        answering = !answers.empty() && answers.front().first <= now && answer.open();
        top.read_ready = read.open();
        top.write_ready = write.open();
        top.answer_valid = answering;
        if (answering) give(top.answer_payload, answers.front().second.data());
    }

    // Before the clock rises: what passes in this cycle.
    void after(const Vdatapath& top) {
        const bool reads = top.read_valid && read.open(), writes = top.write_valid && write.open(), answered = answering && top.answer_ready;
        if (answered) answers.pop_front();
        if (reads) {
            const uint32_t* word = &words[size_t(top.read_payload) * SIZE];
            answers.emplace_back(now + run.latency, Word(word, word + SIZE));
        }
        if (writes) {
            // The address, and above it the word.
            Word chunks = taken(top.write_payload);
            chunks.resize(SIZE + 1);
            const size_t address = chunks[0] & ((1u << run.address_bits) - 1);
            for (size_t chunk = 0; chunk < SIZE; chunk++) {
                const uint64_t both = chunks[chunk] | uint64_t(chunks[chunk + 1]) << 32;
                words[address * SIZE + chunk] = uint32_t(both >> run.address_bits);
            }
        }
        read.tick(reads);
        answer.tick(answered);
        write.tick(writes);
        now++;
    }

private:
    static constexpr size_t SIZE = chunks_of<decltype(Vdatapath::answer_payload)>;
    const Run& run;
    Word words;
    Pace read, answer, write;
    std::deque<std::pair<uint64_t, Word>> answers;
    bool answering = false;
    uint64_t now = 0;
};
#else
struct External {
    External(const Run&, const Word&) {}
    void fill(size_t, const uint32_t*, size_t) {}
    void before(Vdatapath&) {}
    void after(const Vdatapath&) {}
};
#endif

// Words of a stream, one behind the other: those of a part of the program, or of a batch of images.
struct Stretch {
    bool image;
    const uint32_t* chunks;
    size_t words;
};

int main(int count, char** names) {
    if (count != 3) {
        std::cerr << "usage: bench INPUT OUTPUT\n";
        return 2;
    }
    std::ifstream input(names[1], std::ios::binary);
    std::ofstream output(names[2], std::ios::binary);
    const auto read = [&input](size_t length) {
        Word words(length);
        input.read(reinterpret_cast<char*>(words.data()), std::streamsize(4 * length));
        return words;
    };
    const auto write = [&output](const Word& words) {
        output.write(reinterpret_cast<const char*>(words.data()), std::streamsize(4 * words.size()));
    };
    Run run;
    input.read(reinterpret_cast<char*>(&run), sizeof run);
    constexpr size_t IMAGE = chunks_of<decltype(Vdatapath::image_payload)>;
    const Word pauses = read(run.pauses), lengths = read(run.parts);
    std::vector<Word> parts;
    for (uint32_t length : lengths) parts.push_back(read(length));
    const size_t image_chunks = run.image_words * IMAGE;
    const Word images = read(run.batches * image_chunks);
    if (!input) {
        std::cerr << names[1] << " is shorter than it says\n";
        return 2;
    }

    VerilatedContext context;
    Vdatapath top(&context);
    External external(run, pauses);
    Pace host(pauses), reader(pauses);
    uint64_t now = 0;
    const auto rise = [&] {
        top.clk = 1;
        top.eval();
        if (++now % GLANCE_CYCLES == 0) std::cout << now << std::endl;
    };

    // A resident program comes in once, and is given time until its first instruction is there.
    if (run.resident) {
        for (size_t sent = 0; sent < parts[0].size() + SETTLE_CYCLES;) {
            top.load_valid = sent < parts[0].size();
            if (top.load_valid) top.load_payload = parts[0][sent];
            top.clk = 0;
            top.eval();
            sent += top.load_ready || !top.load_valid;
            rise();
        }
    }
    write({top.cycles});

    // The host works through its stretches, batch by batch, while scores are taken.
    std::vector<Stretch> stretches;
    for (uint32_t batch = 0; batch < run.batches; batch++) {
        const Stretch image{true, &images[batch * image_chunks], run.image_words};
        if (!run.resident)
            for (size_t part = 0; part < parts.size(); part++) {
                stretches.push_back({false, parts[part].data(), parts[part].size()});
                if (part == 0 && !run.image_outside) stretches.push_back(image);
            }
        else
            stretches.push_back(image);
    }
    const size_t stretches_per_batch = stretches.size() / (run.batches ? run.batches : 1);
    size_t stretch = 0, sent = 0;
    for (uint32_t batch = 0; batch < run.batches; batch++) {
        for (uint32_t score = 0; score < run.score_words;) {
            const bool sends = stretch < stretches.size() && host.open();
            const Stretch& sending = stretches[stretch < stretches.size() ? stretch : 0];
            top.load_valid = sends && !sending.image;
            top.image_valid = sends && sending.image;
            if (top.load_valid) top.load_payload = sending.chunks[sent];
            if (top.image_valid) give(top.image_payload, sending.chunks + sent * IMAGE);
            top.score_ready = reader.open();
            external.before(top);
            top.clk = 0;
            top.eval();
            const bool passed = (top.load_valid && top.load_ready) || (top.image_valid && top.image_ready);
            const bool scored = top.score_valid && top.score_ready;
            external.after(top);
            host.tick(passed);
            reader.tick(scored);
            // Images for the external memory are written when the batch before is done: when the first word of a program passes.
            if (passed && sent == 0 && run.image_outside && stretch % stretches_per_batch == 0)
                external.fill(run.image_first, &images[stretch / stretches_per_batch * image_chunks], image_chunks);
            if (passed && ++sent == sending.words) {
                stretch++;
                sent = 0;
            }
            if (scored) {
                write(taken(top.score_payload));
                score++;
            }
            rise();
        }
        write({top.cycles});
    }
    return 0;
}
