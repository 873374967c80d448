/* What fused.c offers. fused.py reads the declarations below, so they are written nowhere else.
 *
 * Rows are tokens, arrays are contiguous, and `sums` are the int32 results of a product of int8
 * rows with int8 weights: an output is sum * row_scale * column_scale + bias, where bias may be
 * NULL. `scratch` has `stride` floats for each of `threads` threads.
 */

#pragma once

#include <stdint.h>

/* The SHA-256 of the sources this was built from, in hexadecimal digits. */
const char *millpond_sources(void);

/* sums (n, outs) = rows (n, depth) times weights, all in whole numbers, so exact below 2^31. The
 * depth is even, outs a multiple of 16. Weights lie in panels of 16 outputs (outs / 16, depth / 2,
 * 16, 2), so that the two products of a pair of inputs are one instruction. */
void millpond_multiply(const int16_t *rows, const int16_t *panels, int64_t n, int64_t depth,
                       int64_t outs, int32_t *sums, int64_t threads);

/* states (n, width) to int8 rows (n, width) and scales (n): normed, rotated, rounded.
 * A row takes `width` floats of scratch. */
void millpond_norm(const float *states, const float *gains, float epsilon, int64_t block,
                   int64_t n, int64_t width, int8_t *rows, float *scales, float *scratch,
                   int64_t stride, int64_t threads);

/* after (n, width) = states + outputs of sums (n, width). */
void millpond_add(const float *states, const int32_t *sums, const float *row_scales,
                  const float *column_scales, const float *bias, int64_t n, int64_t width,
                  float *after, int64_t threads);

/* millpond_add, and millpond_norm of what it gives. */
void millpond_add_norm(const float *states, const int32_t *sums, const float *row_scales,
                       const float *column_scales, const float *bias, const float *gains,
                       float epsilon, int64_t block, int64_t n, int64_t width, float *after,
                       int8_t *rows, float *scales, float *scratch, int64_t stride,
                       int64_t threads);

/* sums (n, heads + 2 * key_heads, width) of queries, keys and values side by side to float32:
 * queries (n, heads, width), keys and values (n, key_heads, width). Queries and keys get QK-norm
 * where gains are not NULL, and RoPE with cos and sin (n, width). */
void millpond_heads(const int32_t *sums, const float *row_scales, const float *column_scales,
                    const float *bias, const float *query_gains, const float *key_gains,
                    float epsilon, const float *cos, const float *sin, int64_t n, int64_t heads,
                    int64_t key_heads, int64_t width, float *queries, float *keys, float *values,
                    int64_t threads);

/* values (n, width) to int8 rows and scales, as they are. */
void millpond_round(const float *values, int64_t n, int64_t width, int8_t *rows, float *scales,
                    int64_t threads);

/* sums (n, 2 * width) of gates and ups side by side to int8 rows (n, width) and scales (n) of
 * silu(gate) * up, rotated. A row takes 2 * width floats of scratch. */
void millpond_swiglu(const int32_t *sums, const float *row_scales, const float *column_scales,
                     const float *bias, int64_t block, int64_t n, int64_t width, int8_t *rows,
                     float *scales, float *scratch, int64_t stride, int64_t threads);

/* Attention within each text. Queries (n, heads, width), keys and values (n, key_heads, width),
 * each of which serves heads / key_heads neighbouring heads; text b has the rows offsets[b] to
 * offsets[b + 1]. To mixed (n, heads, width). The width is a multiple of 16. A text of T tokens
 * takes (width + 8) * T floats of scratch, T rounded up to a multiple of 16. */
void millpond_attend(const float *queries, const float *keys, const float *values,
                     const int32_t *offsets, int64_t texts, int64_t heads, int64_t key_heads,
                     int64_t width, float scaling, int64_t is_causal, float *mixed,
                     float *scratch, int64_t stride, int64_t threads);
