/* What fused.c does to the numbers of one token, or to a tile of eight. */

#pragma once

#include <immintrin.h>
#include <math.h>
#include <stdint.h>

#define LANES 16
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define PLACES(d)                                                                            \
    0 ^ d, 1 ^ d, 2 ^ d, 3 ^ d, 4 ^ d, 5 ^ d, 6 ^ d, 7 ^ d, 8 ^ d, 9 ^ d, 10 ^ d, 11 ^ d,     \
        12 ^ d, 13 ^ d, 14 ^ d, 15 ^ d
#ifdef __clang__
#define PARTNER(v, d) __builtin_shufflevector(v, v, PLACES(d))
#else /* GCC before 12 has not the other */
typedef int32_t places __attribute__((vector_size(4 * LANES)));
#define PARTNER(v, d) __builtin_shuffle(v, (places){PLACES(d)})
#endif
#define SIGN(i, d) ((i) & (d) ? -1.0f : 1.0f)
#define SIGNS(d)                                                                             \
    (lanes) {                                                                                \
        SIGN(0, d), SIGN(1, d), SIGN(2, d), SIGN(3, d), SIGN(4, d), SIGN(5, d), SIGN(6, d),   \
        SIGN(7, d), SIGN(8, d), SIGN(9, d), SIGN(10, d), SIGN(11, d), SIGN(12, d),            \
        SIGN(13, d), SIGN(14, d), SIGN(15, d)                                                 \
    }
#define BUTTERFLY(v, d) (PARTNER(v, d) + (v) * SIGNS(d))

/* Multiply 64 numbers by the orthogonal Hadamard matrix. */
static inline void rotate_64(float *values)
{
    lanes *at = (lanes *)values, part[4];
    for (int i = 0; i < 4; i++) {
        lanes v = at[i] * 0.125f;
        v = BUTTERFLY(v, 1);
        v = BUTTERFLY(v, 2);
        v = BUTTERFLY(v, 4);
        part[i] = BUTTERFLY(v, 8);
    }
    lanes a = part[0] + part[1], b = part[0] - part[1];
    lanes c = part[2] + part[3], d = part[2] - part[3];
    at[0] = a + c;
    at[1] = b + d;
    at[2] = a - c;
    at[3] = b - d;
}

/* Multiply each `block` numbers, a power of two, by the orthogonal Hadamard matrix. */
static inline void rotate_blocks(float *row, int64_t width, int64_t block)
{
    if (block == 64) {
        for (int64_t start = 0; start < width; start += 64)
            rotate_64(row + start);
        return;
    }
    const float factor = 1.0f / sqrtf((float)block);
    for (int64_t start = 0; start < width; start += block) {
        float *own = row + start;
        for (int64_t half = 1; half < block; half *= 2)
            for (int64_t i = 0; i < block; i++)
                if (!(i & half)) {
                    const float a = own[i], b = own[i + half];
                    own[i] = a + b;
                    own[i + half] = a - b;
                }
        for (int64_t i = 0; i < block; i++)
            own[i] *= factor;
    }
}

/* Round to -127 .. 127; return what the integers are to be multiplied with. */
static inline float round_row(const float *row, int8_t *out, int64_t width)
{
    float most = 1e-12f;
#pragma omp simd reduction(max : most)
    for (int64_t i = 0; i < width; i++) {
        const float size = fabsf(row[i]);
        most = size > most ? size : most;
    }
    const float scale = most / 127.0f, inverse = 1.0f / scale;
#pragma omp simd
    for (int64_t i = 0; i < width; i++)
        out[i] = (int8_t)(int32_t)rintf(row[i] * inverse);
    return scale;
}

/* RMSNorm: divide by the root mean square, times the gains. */
static inline void norm_row(const float *row, const float *gains, float epsilon, float *out,
                            int64_t width)
{
    float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < width; i++)
        squares += row[i] * row[i];
    const float factor = 1.0f / sqrtf(squares / (float)width + epsilon);
#pragma omp simd
    for (int64_t i = 0; i < width; i++)
        out[i] = row[i] * factor * gains[i];
}

static inline void scale_row(const int32_t *sums, float row_scale, const float *column_scales,
                             const float *bias, float *out, int64_t width)
{
#pragma omp simd
    for (int64_t i = 0; i < width; i++)
        out[i] = (float)sums[i] * row_scale * column_scales[i];
    if (bias)
        for (int64_t i = 0; i < width; i++)
            out[i] += bias[i];
}

static inline void add_row(const float *states, const int32_t *sums, float row_scale,
                           const float *column_scales, const float *bias, float *out, int64_t width)
{
#pragma omp simd
    for (int64_t i = 0; i < width; i++)
        out[i] = states[i] + (float)sums[i] * row_scale * column_scales[i];
    if (bias)
        for (int64_t i = 0; i < width; i++)
            out[i] += bias[i];
}

/* e ** x, to about 1e-7 of itself: x = whole * ln 2 + rest, and the series for the rest. */
static inline float exponential(float x)
{
    x = x < -87.0f ? -87.0f : x;
    x = x > 87.0f ? 87.0f : x;
    const float whole = rintf(x * 1.44269504088896341f);
    const float rest = (x - whole * 0.693359375f) + whole * 2.12194440054690583e-4f;
    float sum = 1.0f / 720.0f;
    sum = sum * rest + 1.0f / 120.0f;
    sum = sum * rest + 1.0f / 24.0f;
    sum = sum * rest + 1.0f / 6.0f;
    sum = sum * rest + 0.5f;
    sum = sum * rest + 1.0f;
    sum = sum * rest + 1.0f;
    union {
        int32_t bits;
        float value;
    } power = {((int32_t)whole + 127) << 23};
    return sum * power.value;
}

/* SwiGLU: out = silu(gates) * ups; out may be one of them. */
static inline void swiglu_row(const float *gates, const float *ups, float *out, int64_t width)
{
#pragma omp simd
    for (int64_t i = 0; i < width; i++)
        out[i] = gates[i] / (1.0f + exponential(-gates[i])) * ups[i];
}

/* RoPE: rotate each pair (i, i + half) of a head by the angle of its position. */
static inline void rope_head(float *head, const float *cos, const float *sin, int64_t width)
{
    const int64_t half = width / 2;
#pragma omp simd
    for (int64_t i = 0; i < half; i++) {
        const float a = head[i], b = head[i + half];
        head[i] = a * cos[i] - b * sin[i];
        head[i + half] = b * cos[i + half] + a * sin[i + half];
    }
}

/* QK-norm where gains are not NULL, then RoPE. */
static inline void norm_rope_head(float *head, const float *gains, float epsilon, const float *cos,
                              const float *sin, int64_t width)
{
    if (gains)
        norm_row(head, gains, epsilon, head, width);
    rope_head(head, cos, sin, width);
}

#ifdef __AVX512F__
#define WIDE 16
#else
#define WIDE 8
#endif
/* One register; GCC keeps a vector of two in memory. */
typedef float wide __attribute__((vector_size(4 * WIDE), aligned(4), may_alias));

/* found[q] = sum over k of rows[q][k] * columns[k * stride + 0 .. WIDE - 1], for 8 rows. */
static inline void multiply_tile(const float *const rows[8], const float *columns, int64_t stride,
                                 int64_t depth, wide found[8])
{
    wide sum[8] = {{0}};
    for (int64_t k = 0; k < depth; k++) {
        const wide column = *(const wide *)(columns + k * stride);
        for (int q = 0; q < 8; q++)
            sum[q] += column * rows[q][k];
    }
    for (int q = 0; q < 8; q++)
        found[q] = sum[q];
}

/* Weights of attention from scores: e ** (score - the largest), 0 from `seen` to `width`.
 * Returns their sum. */
static inline float weigh(float *scores, int64_t seen, int64_t width)
{
    float most = scores[0], sum = 0.0f;
#pragma omp simd reduction(max : most)
    for (int64_t i = 0; i < seen; i++)
        most = scores[i] > most ? scores[i] : most;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < seen; i++) {
        scores[i] = exponential(scores[i] - most);
        sum += scores[i];
    }
    for (int64_t i = seen; i < width; i++)
        scores[i] = 0.0f;
    return sum;
}

typedef int32_t pair __attribute__((may_alias)); /* of int16 */
#define TILE 6 /* rows whose sums, two registers of eight each, fit the 16 of AVX2 */

/* sums[r * outs + 0 .. 15] = the products of n rows with a panel of 16 outputs. */
static inline void multiply_panel(const int16_t *rows, const int16_t *panel, int64_t n,
                                  int64_t depth, int64_t outs, int32_t *sums)
{
    const __m256i *const weights = (const __m256i *)panel;
    for (int64_t r = 0; r < n; r += TILE) {
        const pair *row[TILE];
        __m256i low[TILE], high[TILE];
        for (int q = 0; q < TILE; q++) { /* the last row again where there are fewer */
            row[q] = (const pair *)(rows + (r + q < n ? r + q : n - 1) * depth);
            low[q] = high[q] = _mm256_setzero_si256();
        }
        for (int64_t k = 0; k < depth / 2; k++) {
            const __m256i first = _mm256_loadu_si256(weights + 2 * k);
            const __m256i second = _mm256_loadu_si256(weights + 2 * k + 1);
            for (int q = 0; q < TILE; q++) {
                const __m256i inputs = _mm256_set1_epi32(row[q][k]);
                low[q] = _mm256_add_epi32(low[q], _mm256_madd_epi16(inputs, first));
                high[q] = _mm256_add_epi32(high[q], _mm256_madd_epi16(inputs, second));
            }
        }
        for (int q = 0; q < TILE && r + q < n; q++) {
            __m256i *const found = (__m256i *)(sums + (r + q) * outs);
            _mm256_storeu_si256(found, low[q]);
            _mm256_storeu_si256(found + 1, high[q]);
        }
    }
}
