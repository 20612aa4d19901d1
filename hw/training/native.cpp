// What the steps of every training are made of; hw/training/native.py writes constants and tables before it, those of one behind it.
#include <algorithm>
#include <cstdint>
#include <cstdlib>

typedef int16_t element;
constexpr int REGISTERS = 16; // for sums; of 32, the others hold operands
typedef element elements __attribute__((vector_size(VECTOR * sizeof(element)), aligned(sizeof(element))));
typedef int32_t sums __attribute__((vector_size(VECTOR * sizeof(int32_t))));

inline int32_t saturated(int32_t value, int bits) {
    const int32_t top = (1 << (bits - 1)) - 1;
    return std::min(std::max(value, -top - 1), top);
}

// bayestt.algebra.fixed.rescale; a half is added behind the first part of the shift, where 32 bits hold the sum.
inline int32_t rescaled(int32_t sum, int shift, int bits) {
    const int first = shift > 0 ? shift - 1 : 0, half = shift > 0;
    return saturated(((sum >> first) + half) >> half, bits);
}

inline int within(int shift) { return std::min(std::max(shift, 1 - MAX_BITS), MAX_BITS - 1); }

// The same of a shift that may be below 0.
inline int32_t rescaled_any(int32_t sum, int shift, int bits) {
    if (shift >= 0) return rescaled(sum, shift, bits);
    const int64_t top = (1 << (bits - 1)) - 1;
    return int32_t(std::min(std::max(int64_t(sum) * (int64_t(1) << -shift), -top - 1), top));
}

// Rows of a matrix product, as many columns as COLUMNS vectors have: the sums stay in registers.
template <int ROWS, int COLUMNS, int SUMMED, class Use>
inline __attribute__((always_inline)) void rows(const element *x, const int *x_row, const int *x_summed, const element *w,
                                                const int *w_summed, Use use) {
    sums kept[ROWS][COLUMNS] = {};
    for (int k = 0; k < SUMMED; k++) {
        sums word[COLUMNS];
#pragma GCC unroll 16
        for (int c = 0; c < COLUMNS; c++) word[c] = __builtin_convertvector(*(const elements *)(w + w_summed[k] + c * VECTOR), sums);
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) {
            const int32_t each = x[x_row[r] + x_summed[k]];
#pragma GCC unroll 16
            for (int c = 0; c < COLUMNS; c++) kept[r][c] += each * word[c];
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) use(r, (const int32_t *)kept[r]);
}

constexpr int at_once(int vectors) { return vectors % 4 == 0 ? 4 : vectors % 3 == 0 ? 3 : vectors % 2 == 0 ? 2 : 1; }

// A matrix of ALL rows by one of WIDTH columns, whole vectors; elements lie where the tables say. `use` is given a row, its columns, their sums.
template <int ALL, int SUMMED, int WIDTH, class Use>
inline void product(const element *x, const int *x_row, const int *x_summed, const element *w, const int *w_summed, Use use) {
    constexpr int columns = at_once(WIDTH / VECTOR), most = REGISTERS / columns, some = ALL < most ? ALL : most;
    for (int column = 0; column < WIDTH; column += columns * VECTOR) {
        const int end = column + columns * VECTOR;
        int row = 0;
        for (; row + some <= ALL; row += some)
            rows<some, columns, SUMMED>(x, x_row + row, x_summed, w + column, w_summed,
                                        [&](int r, const int32_t *sum) { use(row + r, column, end, sum); });
        if constexpr (ALL % some != 0)
            rows<ALL % some, columns, SUMMED>(x, x_row + row, x_summed, w + column, w_summed,
                                              [&](int r, const int32_t *sum) { use(row + r, column, end, sum); });
    }
}

struct Reciprocal { int32_t mantissa; int exponent; };

// bayestt.algebra.reciprocal.reciprocal
inline Reciprocal reciprocal(uint32_t value) {
    const int exponent = 31 - __builtin_clz(value) - INDEX_BITS;
    const uint32_t leading = exponent < 0 ? value << -exponent : value >> exponent;
    return {RECIPROCAL[leading - (1 << INDEX_BITS)], exponent + MANTISSA_BITS};
}

// bayestt.ir.descend.error
template <int CLASSES> inline void softmax_error(const element *scores, int label, element *errors) {
    const int largest = *std::max_element(scores, scores + CLASSES);
    int32_t odds[CLASSES], sum = 0;
    for (int k = 0; k < CLASSES; k++) {
        const int below = largest - scores[k];
        sum += odds[k] = below < int(sizeof EXPONENTIAL / sizeof *EXPONENTIAL) ? EXPONENTIAL[below] : 0;
    }
    const Reciprocal by = reciprocal(sum);
    for (int k = 0; k < CLASSES; k++)
        errors[k] = rescaled(odds[k] * by.mantissa, by.exponent - ERROR_FRAC, 16) - ((k == label) << ERROR_FRAC);
}

// bayestt.algebra.lfsr.draw: of sixteen clocks the first eleven depend on the register alone, the others on what these let in.
inline uint32_t draw(uint32_t reg) {
    reg |= ((reg ^ reg >> 2 ^ reg >> 3 ^ reg >> 5) & 0x7ff) << 16;
    return (reg | (reg >> 11 ^ reg >> 13 ^ reg >> 14 ^ reg >> 16) << 27) >> 16;
}

// A latent less a move, which the next draw rounds.
inline int32_t moved_latent(int32_t latent, int32_t move, uint32_t &draws) {
    draws = draw(draws);
    return saturated(latent - ((move + int32_t(draws)) >> DRAW_BITS), 8);
}

// bayestt.ir.rank_scale.pulled: what latents are multiplied by.
inline int32_t strength(int32_t square, int pull) {
    const Reciprocal by = reciprocal(std::max(square, 1));
    return rescaled_any(by.mantissa, within(by.exponent - SCALE_FRAC - DRAW_BITS - pull), 16);
}

// bayestt.ir.rank_scale.moved_scales, of an axis; squares are below 2^23, so the best ones saturate nowhere.
inline void move_scales(int indices, int32_t *squares, int32_t *alive, const int64_t *energy, const int32_t *entries) {
    int largest = 0;
    for (int k = 0; k < indices; k++) {
        const Reciprocal by = reciprocal(entries[k] + 1);
        const int shift = by.exponent - SCALE_FRAC;
        const int64_t best = (energy[k] * by.mantissa + ((int64_t(1) << shift) >> 1)) >> shift;
        squares[k] = alive[k] ? squares[k] + int32_t((best - squares[k] + (1 << (DAMPING - 1))) >> DAMPING) : 0;
        if (squares[k] > squares[largest]) largest = k;
    }
    for (int k = 0; k < indices; k++) {
        alive[k] = alive[k] && (squares[k] >= THRESHOLD << SCALE_FRAC || k == largest);
        squares[k] = alive[k] ? squares[k] : 0;
    }
}

// bayestt.ir.descend.controlled, of a contraction whose results have so many bits.
inline void control(int32_t peak, int bits, int patience, int32_t &shift, int32_t &count) {
    const int64_t end = int64_t(1) << (bits - 1);
    const int asked = (8 * int64_t(peak) > 7 * end) - (16 * int64_t(peak) < 5 * end);
    count = asked + (asked * count > 0 ? count : 0);
    const bool moves = asked && std::abs(count) > patience && 0 <= shift + asked && shift + asked < MAX_BITS;
    if (moves) shift += asked;
    count = moves ? 0 : std::max(-PATIENT - 1, std::min(count, PATIENT + 1));
}
