/* What a decoder layer does between its matrix products, in one pass over memory each.
 *
 * fused.py compiles this file for the CPU at hand; it and fused_int8.py call it. Rows
 * are tokens, arrays are contiguous, and `sums` are the int32 results of a product of int8 rows
 * with int8 weights: an output is sum * row_scale * column_scale + bias, where bias may be NULL.
 * Loops that may sum in any order say so, so that the compiler need not be allowed to for all.
 */

#include <stdint.h>

#include "fused_rows.h"

/* states (n, width) normed. */
void millpond_norm_float(const float *states, const float *gains, float epsilon, long n, long width,
                         float *normed, int threads)
{
#pragma omp parallel for num_threads(threads)
    for (long t = 0; t < n; t++)
        norm_row(states + t * width, gains, epsilon, normed + t * width, width);
}

/* values (n, heads, width) in place: QK-norm where gains are not NULL, then RoPE with cos and sin
 * (n, width). */
void millpond_norm_rope(float *values, const float *gains, float epsilon, const float *cos,
                    const float *sin, long n, long heads, long width, int threads)
{
#pragma omp parallel for num_threads(threads)
    for (long t = 0; t < n; t++)
        for (long h = 0; h < heads; h++)
            norm_rope_head(values + (t * heads + h) * width, gains, epsilon, cos + t * width,
                       sin + t * width, width);
}

/* SwiGLU: gates (n, width) = silu(gates) * ups. */
void millpond_swiglu_float(float *gates, const float *ups, long n, long width, int threads)
{
#pragma omp parallel for num_threads(threads)
    for (long t = 0; t < n; t++)
        swiglu_row(gates + t * width, ups + t * width, gates + t * width, width);
}

/* states (n, width) to int8 rows (n, width) and scales (n): normed, rotated, rounded. */
void millpond_norm(const float *states, const float *gains, float epsilon, long block, long n,
                   long width, int8_t *rows, float *scales, int threads)
{
#pragma omp parallel for num_threads(threads)
    for (long t = 0; t < n; t++) {
        float row[width];
        norm_row(states + t * width, gains, epsilon, row, width);
        rotate_blocks(row, width, block);
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
        rotate_blocks(row, width, block);
        scales[t] = round_row(row, rows + t * width, width);
    }
}

/* sums (n, heads + 2 * key_heads, width) of queries, keys and values side by side to float32:
 * queries (n, heads, width), keys and values (n, key_heads, width). Queries and keys get QK-norm where
 * gains are not NULL, and RoPE with cos and sin (n, width). */
void millpond_heads(const int32_t *sums, const float *row_scales, const float *column_scales,
                    const float *bias, const float *query_gains, const float *key_gains,
                    float epsilon, const float *cos, const float *sin, long n, long heads,
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
                norm_rope_head(own, is_query ? query_gains : key_gains, epsilon, cos + t * width,
                           sin + t * width, width);
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
 * silu(gate) * up, rotated. */
void millpond_swiglu(const int32_t *sums, const float *row_scales, const float *column_scales,
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
            swiglu_row(gate, row, row, width);
        } else { /* the usual case in one loop, which saves a tenth of this function's time */
#pragma omp simd
            for (long i = 0; i < width; i++) {
                const float gate = (float)gates[i] * scale * column_scales[i];
                row[i] = (float)ups[i] * scale * up_scales[i] * gate / (1.0f + exponential(-gate));
            }
        }
        rotate_blocks(row, width, block);
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
        float key_columns[width * columns], scores[8 * columns];
        for (long j = 0; j < length; j++)
            for (long d = 0; d < width; d++)
                key_columns[d * columns + j] = own_keys[j * key_step + d] * scaling;
        for (long d = 0; d < width; d++)
            for (long j = length; j < columns; j++)
                key_columns[d * columns + j] = 0.0f;
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
                    multiply_tile(rows, key_columns + j, columns, width, tile);
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
