// What the step of every training is made of; hw/training/native.py writes constants and tables before it, the step of one behind it.
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

// bayestt.ir.descend.error
template <int CLASSES> inline void softmax_error(const element *scores, int label, element *errors) {
    const int largest = *std::max_element(scores, scores + CLASSES);
    int32_t odds[CLASSES], sum = 0;
    for (int k = 0; k < CLASSES; k++) {
        const int below = largest - scores[k];
        sum += odds[k] = below < int(sizeof EXPONENTIAL / sizeof *EXPONENTIAL) ? EXPONENTIAL[below] : 0;
    }
    const int exponent = 31 - __builtin_clz(sum) - INDEX_BITS;
    const int32_t mantissa = RECIPROCAL[(sum >> exponent) - (1 << INDEX_BITS)];
    for (int k = 0; k < CLASSES; k++)
        errors[k] = rescaled(odds[k] * mantissa, exponent + MANTISSA_BITS - ERROR_FRAC, 16) - ((k == label) << ERROR_FRAC);
}
