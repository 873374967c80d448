/* What a decoder layer does between its matrix products, in one pass over memory each.
 *
 * fused_build.py compiles this file for the CPU at hand; fused.py and fused_int8.py call it. Rows
 * are tokens, arrays are contiguous, and `sums` are the int32 results of a product of int8 rows
 * with int8 weights: an output is sum * row_scale * column_scale + bias, where bias may be NULL.
 * Loops that may sum in any order say so, so that the compiler need not be allowed to for all.
 */

#include <math.h>
#include <stdint.h>

#define LANES 16
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* ---- one row ---- */

#define PARTNER(v, d)                                                                        \
    __builtin_shufflevector(v, v, 0 ^ d, 1 ^ d, 2 ^ d, 3 ^ d, 4 ^ d, 5 ^ d, 6 ^ d, 7 ^ d,     \
                            8 ^ d, 9 ^ d, 10 ^ d, 11 ^ d, 12 ^ d, 13 ^ d, 14 ^ d, 15 ^ d)
#define SIGN(i, d) ((i) & (d) ? -1.0f : 1.0f)
#define SIGNS(d)                                                                             \
    (lanes) {                                                                                \
        SIGN(0, d), SIGN(1, d), SIGN(2, d), SIGN(3, d), SIGN(4, d), SIGN(5, d), SIGN(6, d),   \
        SIGN(7, d), SIGN(8, d), SIGN(9, d), SIGN(10, d), SIGN(11, d), SIGN(12, d),            \
        SIGN(13, d), SIGN(14, d), SIGN(15, d)                                                 \
    }
#define BUTTERFLY(v, d) (PARTNER(v, d) + (v) * SIGNS(d))

/* Multiply 64 numbers by the orthogonal Hadamard matrix. */
static inline void turn_64(float *values)
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
static inline void turn(float *row, long width, long block)
{
    if (block == 64) {
        for (long start = 0; start < width; start += 64)
            turn_64(row + start);
        return;
    }
    const float factor = 1.0f / sqrtf((float)block);
    for (long start = 0; start < width; start += block) {
        float *own = row + start;
        for (long half = 1; half < block; half *= 2)
            for (long i = 0; i < block; i++)
                if (!(i & half)) {
                    const float a = own[i], b = own[i + half];
                    own[i] = a + b;
                    own[i + half] = a - b;
                }
        for (long i = 0; i < block; i++)
            own[i] *= factor;
    }
}

/* Round to -127 .. 127; return what the integers are to be multiplied with. */
static inline float round_row(const float *row, int8_t *out, long width)
{
    float most = 1e-12f;
#pragma omp simd reduction(max : most)
    for (long i = 0; i < width; i++) {
        const float size = fabsf(row[i]);
        most = size > most ? size : most;
    }
    const float scale = most / 127.0f, inverse = 1.0f / scale;
#pragma omp simd
    for (long i = 0; i < width; i++)
        out[i] = (int8_t)(int32_t)rintf(row[i] * inverse);
    return scale;
}

/* Divide by the root mean square, times the gains. */
static inline void norm_row(const float *row, const float *gains, float epsilon, float *out,
                            long width)
{
    float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
    for (long i = 0; i < width; i++)
        squares += row[i] * row[i];
    const float factor = 1.0f / sqrtf(squares / (float)width + epsilon);
#pragma omp simd
    for (long i = 0; i < width; i++)
        out[i] = row[i] * factor * gains[i];
}

static inline void scale_row(const int32_t *sums, float row_scale, const float *column_scales,
                             const float *bias, float *out, long width)
{
#pragma omp simd
    for (long i = 0; i < width; i++)
        out[i] = (float)sums[i] * row_scale * column_scales[i];
    if (bias)
        for (long i = 0; i < width; i++)
            out[i] += bias[i];
}

static inline void add_row(const float *states, const int32_t *sums, float row_scale,
                           const float *column_scales, const float *bias, float *out, long width)
{
#pragma omp simd
    for (long i = 0; i < width; i++)
        out[i] = states[i] + (float)sums[i] * row_scale * column_scales[i];
    if (bias)
        for (long i = 0; i < width; i++)
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

/* Turn each pair (i, i + half) of a head by its position's angle. */
static inline void rotate_head(float *head, const float *cosines, const float *sines, long width)
{
    const long half = width / 2;
#pragma omp simd
    for (long i = 0; i < half; i++) {
        const float a = head[i], b = head[i + half];
        head[i] = a * cosines[i] - b * sines[i];
        head[i + half] = b * cosines[i + half] + a * sines[i + half];
    }
}

/* Norm a head where gains are not NULL, and turn it by its position. */
static inline void place_head(float *head, const float *gains, float epsilon, const float *cosines,
                              const float *sines, long width)
{
    if (gains)
        norm_row(head, gains, epsilon, head, width);
    rotate_head(head, cosines, sines, width);
}

/* found[q] = sum over k of rows[q][k] * columns[k * stride + 0 .. 15], for 8 rows. */
static inline void multiply_tile(const float *const rows[8], const float *columns, long stride,
                                 long depth, lanes found[8])
{
    lanes sum[8] = {{0}};
    for (long k = 0; k < depth; k++) {
        const lanes column = *(const lanes *)(columns + k * stride);
        for (int q = 0; q < 8; q++)
            sum[q] += column * rows[q][k];
    }
    for (int q = 0; q < 8; q++)
        found[q] = sum[q];
}

/* Weights of attention from scores: e ** (score - the largest), 0 from `seen` to `width`.
 * Returns their sum. */
static inline float weigh(float *scores, long seen, long width)
{
    float most = scores[0], sum = 0.0f;
#pragma omp simd reduction(max : most)
    for (long i = 0; i < seen; i++)
        most = scores[i] > most ? scores[i] : most;
#pragma omp simd reduction(+ : sum)
    for (long i = 0; i < seen; i++) {
        scores[i] = exponential(scores[i] - most);
        sum += scores[i];
    }
    for (long i = seen; i < width; i++)
        scores[i] = 0.0f;
    return sum;
}

/* ---- all rows ---- */

/* states (n, width) normed. */
void millpond_norm_float(const float *states, const float *gains, float epsilon, long n, long width,
                         float *normed, int threads)
{
#pragma omp parallel for num_threads(threads)
    for (long t = 0; t < n; t++)
        norm_row(states + t * width, gains, epsilon, normed + t * width, width);
}

/* values (n, heads, width) in place: normed where gains are not NULL, turned by their positions. */
void millpond_place(float *values, const float *gains, float epsilon, const float *cosines,
                    const float *sines, long n, long heads, long width, int threads)
{
#pragma omp parallel for num_threads(threads)
    for (long t = 0; t < n; t++)
        for (long h = 0; h < heads; h++)
            place_head(values + (t * heads + h) * width, gains, epsilon, cosines + t * width,
                       sines + t * width, width);
}

/* gates (n, width) = silu(gates) * ups. */
void millpond_gate_float(float *gates, const float *ups, long n, long width, int threads)
{
#pragma omp parallel for num_threads(threads)
    for (long t = 0; t < n; t++) {
        float *own = gates + t * width;
        const float *up = ups + t * width;
#pragma omp simd
        for (long i = 0; i < width; i++)
            own[i] = own[i] / (1.0f + exponential(-own[i])) * up[i];
    }
}

/* states (n, width) to int8 rows (n, width) and scales (n): normed, turned, rounded. */
void millpond_norm(const float *states, const float *gains, float epsilon, long block, long n,
                   long width, int8_t *rows, float *scales, int threads)
{
#pragma omp parallel for num_threads(threads)
    for (long t = 0; t < n; t++) {
        float row[width];
        norm_row(states + t * width, gains, epsilon, row, width);
        turn(row, width, block);
        scales[t] = round_row(row, rows + t * width, width);
    }
}

/* after (n, width) = states + outputs of sums (n, width). */
void millpond_add(const float *states, const int32_t *sums, const float *row_scales,
                  const float *column_scales, const float *bias, long n, long width, float *after,
                  int threads)
{
#pragma omp parallel for num_threads(threads)
    for (long t = 0; t < n; t++)
        add_row(states + t * width, sums + t * width, row_scales[t], column_scales, bias,
                after + t * width, width);
}

/* millpond_add, and millpond_norm of what it gives. */
void millpond_add_norm(const float *states, const int32_t *sums, const float *row_scales,
                       const float *column_scales, const float *bias, const float *gains,
                       float epsilon, long block, long n, long width, float *after, int8_t *rows,
                       float *scales, int threads)
{
#pragma omp parallel for num_threads(threads)
    for (long t = 0; t < n; t++) {
        float row[width], *own = after + t * width;
        add_row(states + t * width, sums + t * width, row_scales[t], column_scales, bias, own,
                width);
        norm_row(own, gains, epsilon, row, width);
        turn(row, width, block);
        scales[t] = round_row(row, rows + t * width, width);
    }
}

/* sums (n, heads + 2 * key_heads, width) of queries, keys and values side by side to float32:
 * queries (n, heads, width), keys and values (n, key_heads, width). Queries and keys are normed
 * where gains are not NULL, and turned by their positions, cosines and sines (n, width). */
void millpond_heads(const int32_t *sums, const float *row_scales, const float *column_scales,
                    const float *bias, const float *query_gains, const float *key_gains,
                    float epsilon, const float *cosines, const float *sines, long n, long heads,
                    long key_heads, long width, float *queries, float *keys, float *values,
                    int threads)
{
    const long all = heads + 2 * key_heads;
#pragma omp parallel for num_threads(threads)
    for (long t = 0; t < n; t++)
        for (long h = 0; h < all; h++) {
            const int is_query = h < heads, is_key = !is_query && h < heads + key_heads;
            float *own = is_query ? queries + (t * heads + h) * width
                         : is_key ? keys + (t * key_heads + h - heads) * width
                                  : values + (t * key_heads + h - heads - key_heads) * width;
            scale_row(sums + (t * all + h) * width, row_scales[t], column_scales + h * width,
                      bias ? bias + h * width : 0, own, width);
            if (is_query || is_key)
                place_head(own, is_query ? query_gains : key_gains, epsilon, cosines + t * width,
                           sines + t * width, width);
        }
}

/* values (n, width) to int8 rows and scales, as they are. */
void millpond_round(const float *values, long n, long width, int8_t *rows, float *scales,
                    int threads)
{
#pragma omp parallel for num_threads(threads)
    for (long t = 0; t < n; t++)
        scales[t] = round_row(values + t * width, rows + t * width, width);
}

/* sums (n, 2 * width) of gates and ups side by side to int8 rows (n, width) and scales (n) of
 * silu(gate) * up, turned. */
void millpond_gate(const int32_t *sums, const float *row_scales, const float *column_scales,
                   const float *bias, long block, long n, long width, int8_t *rows, float *scales,
                   int threads)
{
#pragma omp parallel for num_threads(threads)
    for (long t = 0; t < n; t++) {
        const int32_t *gates = sums + 2 * t * width, *ups = gates + width;
        const float scale = row_scales[t], *up_scales = column_scales + width;
        float row[width];
        if (bias) {
            float gate[width];
            scale_row(gates, scale, column_scales, bias, gate, width);
            scale_row(ups, scale, up_scales, bias + width, row, width);
#pragma omp simd
            for (long i = 0; i < width; i++)
                row[i] *= gate[i] / (1.0f + exponential(-gate[i]));
        } else {
#pragma omp simd
            for (long i = 0; i < width; i++) {
                const float gate = (float)gates[i] * scale * column_scales[i];
                row[i] = (float)ups[i] * scale * up_scales[i] * gate / (1.0f + exponential(-gate));
            }
        }
        turn(row, width, block);
        scales[t] = round_row(row, rows + t * width, width);
    }
}

/* Attention within each text. Queries (n, heads, width), keys and values (n, key_heads, width), of
 * which each serves heads / key_heads neighbouring heads; text b has the rows offsets[b] to
 * offsets[b + 1]. To mixed (n, heads, width). The width is a multiple of 16. */
void millpond_attend(const float *queries, const float *keys, const float *values,
                     const int32_t *offsets, long texts, long heads, long key_heads, long width,
                     float scaling, int is_causal, float *mixed, int threads)
{
    const long shared = heads / key_heads, step = heads * width, key_step = key_heads * width;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (long task = 0; task < texts * key_heads; task++) {
        const long start = offsets[task / key_heads], group = task % key_heads;
        const long length = offsets[task / key_heads + 1] - start;
        const long columns = (length + LANES - 1) / LANES * LANES;
        const float *own_keys = keys + start * key_step + group * width;
        const float *own_values = values + start * key_step + group * width;
        float turned[width * columns], scores[8 * columns];
        for (long j = 0; j < length; j++)
            for (long d = 0; d < width; d++)
                turned[d * columns + j] = own_keys[j * key_step + d] * scaling;
        for (long d = 0; d < width; d++)
            for (long j = length; j < columns; j++)
                turned[d * columns + j] = 0.0f;
        for (long head = group * shared; head < (group + 1) * shared; head++)
            for (long first = 0; first < length; first += 8) {
                const long found = length - first < 8 ? length - first : 8;
                const long seen = is_causal ? first + found : length;
                const float *rows[8];
                float sums[8];
                lanes tile[8];
                for (int q = 0; q < 8; q++) /* the last one again where there are fewer */
                    rows[q] = queries + head * width +
                              (start + first + (q < found ? q : found - 1)) * step;
                for (long j = 0; j < seen; j += LANES) {
                    multiply_tile(rows, turned + j, columns, width, tile);
                    for (int q = 0; q < 8; q++)
                        *(lanes *)(scores + q * columns + j) = tile[q];
                }
                for (int q = 0; q < 8; q++) {
                    rows[q] = scores + q * columns;
                    sums[q] = weigh(scores + q * columns,
                                    is_causal && first + q < seen ? first + q + 1 : seen, seen);
                }
                for (long d = 0; d < width; d += LANES) {
                    multiply_tile(rows, own_values + d, key_step, seen, tile);
                    for (long q = 0; q < found; q++)
                        *(lanes *)(mixed + (start + first + q) * step + head * width + d) =
                            tile[q] / sums[q];
                }
            }
    }
}
