/* What an int8 decoder layer does between its matrix products, in one pass over memory each.
 *
 * Each function of fused.h hands its rows to torch's own OpenMP threads, by the calls that GCC
 * makes for a parallel loop: so any compiler will do, and no second OpenMP library is loaded.
 * Threads take rows as they come; one that has to wait for its core holds up no other.
 */

#include "fused.h"
#include "rows.h"

/* Of libgomp, which torch has loaded. */
void GOMP_parallel(void (*run)(void *), void *work, unsigned threads, unsigned flags);
int omp_get_thread_num(void);

#ifndef SOURCES
#define SOURCES "unknown"
#endif

const char *millpond_sources(void)
{
    return SOURCES;
}

/* Does one row, or what counts as one, with its thread's own part of the scratch. */
typedef void (*do_row)(const void *given, int64_t row, float *scratch);

struct work {
    do_row run;
    const void *given;
    int64_t rows, taken, chunk, stride;
    float *scratch;
};

static void take_rows(void *shared)
{
    struct work *work = shared;
    float *own = work->scratch ? work->scratch + omp_get_thread_num() * work->stride : 0;
    for (;;) {
        const int64_t start = __atomic_fetch_add(&work->taken, work->chunk, __ATOMIC_RELAXED);
        const int64_t end = start + work->chunk < work->rows ? start + work->chunk : work->rows;
        if (start >= work->rows)
            return;
        for (int64_t row = start; row < end; row++)
            work->run(work->given, row, own);
    }
}

static void for_rows(do_row run, const void *given, int64_t rows, int64_t chunk, float *scratch,
                     int64_t stride, int64_t threads)
{
    struct work work = {run, given, rows, 0, chunk, stride, scratch};
    GOMP_parallel(take_rows, &work, (unsigned)threads, 0);
}

/* Rows of one token each: in chunks that leave every thread several. */
static int64_t chunk_of(int64_t rows, int64_t threads)
{
    const int64_t chunk = rows / (8 * threads);
    return chunk < 1 ? 1 : chunk > 32 ? 32 : chunk;
}

#define FOR_TOKENS(run, given, n, scratch, stride, threads)                                    \
    for_rows(run, &given, n, chunk_of(n, threads), scratch, stride, threads)

struct product {
    const int16_t *rows, *panels;
    int64_t n, depth, outs;
    int32_t *sums;
};

#define STRIP (16 * TILE) /* rows that are multiplied with one panel while it is in the cache */

/* A strip of rows with a panel. */
static void multiply_strip(const void *given, int64_t task, float *scratch)
{
    const struct product *g = given;
    const int64_t panels = g->outs / 16, out = task % panels * 16, top = task / panels * STRIP;
    const int64_t left = g->n - top;
    (void)scratch;
    multiply_panel(g->rows + top * g->depth, g->panels + out * g->depth,
                   left < STRIP ? left : STRIP, g->depth, g->outs, g->sums + top * g->outs + out);
}

void millpond_multiply(const int16_t *rows, const int16_t *panels, int64_t n, int64_t depth,
                       int64_t outs, int32_t *sums, int64_t threads)
{
    const struct product given = {rows, panels, n, depth, outs, sums};
    const int64_t tasks = (n + STRIP - 1) / STRIP * (outs / 16);
    for_rows(multiply_strip, &given, tasks, chunk_of(tasks, threads), 0, 0, threads);
}

struct rounding {
    const float *states, *gains;
    const int32_t *sums;
    const float *row_scales, *column_scales, *bias;
    float epsilon;
    int64_t block, width;
    float *after;
    int8_t *rows;
    float *scales;
};

static void norm_token(const void *given, int64_t t, float *scratch)
{
    const struct rounding *g = given;
    const int64_t at = t * g->width;
    const float *states = g->states + at;
    if (g->sums) {
        add_row(states, g->sums + at, g->row_scales[t], g->column_scales, g->bias, g->after + at,
                g->width);
        states = g->after + at;
    }
    if (g->gains) {
        norm_row(states, g->gains, g->epsilon, scratch, g->width);
        rotate_blocks(scratch, g->width, g->block);
        states = scratch;
    }
    if (g->rows)
        g->scales[t] = round_row(states, g->rows + at, g->width);
}

void millpond_norm(const float *states, const float *gains, float epsilon, int64_t block,
                   int64_t n, int64_t width, int8_t *rows, float *scales, float *scratch,
                   int64_t stride, int64_t threads)
{
    const struct rounding given = {states, gains, 0,     0, 0,    0,
                                   epsilon, block, width, 0, rows, scales};
    FOR_TOKENS(norm_token, given, n, scratch, stride, threads);
}

void millpond_add(const float *states, const int32_t *sums, const float *row_scales,
                  const float *column_scales, const float *bias, int64_t n, int64_t width,
                  float *after, int64_t threads)
{
    const struct rounding given = {states, 0, sums,  row_scales, column_scales, bias,
                                   0,      0, width, after,      0,             0};
    FOR_TOKENS(norm_token, given, n, 0, 0, threads);
}

void millpond_add_norm(const float *states, const int32_t *sums, const float *row_scales,
                       const float *column_scales, const float *bias, const float *gains,
                       float epsilon, int64_t block, int64_t n, int64_t width, float *after,
                       int8_t *rows, float *scales, float *scratch, int64_t stride,
                       int64_t threads)
{
    const struct rounding given = {states,  gains, sums,  row_scales, column_scales, bias,
                                   epsilon, block, width, after,      rows,          scales};
    FOR_TOKENS(norm_token, given, n, scratch, stride, threads);
}

void millpond_round(const float *values, int64_t n, int64_t width, int8_t *rows, float *scales,
                    int64_t threads)
{
    const struct rounding given = {values, 0, 0, 0, 0, 0, 0, 0, width, 0, rows, scales};
    FOR_TOKENS(norm_token, given, n, 0, 0, threads);
}

struct projection {
    const int32_t *sums;
    const float *row_scales, *column_scales, *bias, *query_gains, *key_gains;
    float epsilon;
    const float *cos, *sin;
    int64_t heads, key_heads, width;
    float *queries, *keys, *values;
};

static void project_token(const void *given, int64_t t, float *scratch)
{
    const struct projection *g = given;
    const int64_t width = g->width, all = g->heads + 2 * g->key_heads;
    (void)scratch;
    for (int64_t h = 0; h < all; h++) {
        const int64_t key = h - g->heads, value = key - g->key_heads;
        float *own = key < 0     ? g->queries + (t * g->heads + h) * width
                     : value < 0 ? g->keys + (t * g->key_heads + key) * width
                                 : g->values + (t * g->key_heads + value) * width;
        scale_row(g->sums + (t * all + h) * width, g->row_scales[t],
                  g->column_scales + h * width, g->bias ? g->bias + h * width : 0, own, width);
        if (value < 0)
            norm_rope_head(own, key < 0 ? g->query_gains : g->key_gains, g->epsilon,
                           g->cos + t * width, g->sin + t * width, width);
    }
}

void millpond_heads(const int32_t *sums, const float *row_scales, const float *column_scales,
                    const float *bias, const float *query_gains, const float *key_gains,
                    float epsilon, const float *cos, const float *sin, int64_t n, int64_t heads,
                    int64_t key_heads, int64_t width, float *queries, float *keys, float *values,
                    int64_t threads)
{
    const struct projection given = {
        sums, row_scales, column_scales, bias,  query_gains, key_gains, epsilon, cos,
        sin,  heads,      key_heads,     width, queries,     keys,      values};
    FOR_TOKENS(project_token, given, n, 0, 0, threads);
}

struct gating {
    const int32_t *sums;
    const float *row_scales, *column_scales, *bias;
    int64_t block, width;
    int8_t *rows;
    float *scales;
};

static void gate_token(const void *given, int64_t t, float *row)
{
    const struct gating *g = given;
    const int64_t width = g->width;
    const int32_t *gates = g->sums + 2 * t * width, *ups = gates + width;
    const float scale = g->row_scales[t], *gate_scales = g->column_scales;
    const float *up_scales = gate_scales + width;
    if (g->bias) {
        float *gate = row + width;
        scale_row(gates, scale, gate_scales, g->bias, gate, width);
        scale_row(ups, scale, up_scales, g->bias + width, row, width);
        swiglu_row(gate, row, row, width);
    } else { /* the usual case in one loop, which saves a tenth of this function's time */
#pragma omp simd
        for (int64_t i = 0; i < width; i++) {
            const float gate = (float)gates[i] * scale * gate_scales[i];
            row[i] = (float)ups[i] * scale * up_scales[i] * gate / (1.0f + exponential(-gate));
        }
    }
    rotate_blocks(row, width, g->block);
    g->scales[t] = round_row(row, g->rows + t * width, width);
}

void millpond_swiglu(const int32_t *sums, const float *row_scales, const float *column_scales,
                     const float *bias, int64_t block, int64_t n, int64_t width, int8_t *rows,
                     float *scales, float *scratch, int64_t stride, int64_t threads)
{
    const struct gating given = {sums, row_scales, column_scales, bias, block, width, rows, scales};
    FOR_TOKENS(gate_token, given, n, scratch, stride, threads);
}

struct attention {
    const float *queries, *keys, *values;
    const int32_t *offsets;
    int64_t heads, key_heads, width;
    float scaling;
    int64_t is_causal;
    float *mixed;
};

/* The heads of one text that share a key head. */
static void attend_group(const void *given, int64_t task, float *scratch)
{
    const struct attention *g = given;
    const int64_t width = g->width, step = g->heads * width, key_step = g->key_heads * width;
    const int64_t shared = g->heads / g->key_heads, group = task % g->key_heads;
    const int64_t start = g->offsets[task / g->key_heads];
    const int64_t length = g->offsets[task / g->key_heads + 1] - start;
    const int64_t columns = (length + LANES - 1) / LANES * LANES;
    const float *own_keys = g->keys + start * key_step + group * width;
    const float *own_values = g->values + start * key_step + group * width;
    float *key_columns = scratch, *scores = scratch + width * columns;
    for (int64_t j = 0; j < length; j++)
        for (int64_t d = 0; d < width; d++)
            key_columns[d * columns + j] = own_keys[j * key_step + d] * g->scaling;
    for (int64_t d = 0; d < width; d++)
        for (int64_t j = length; j < columns; j++)
            key_columns[d * columns + j] = 0.0f;
    for (int64_t head = group * shared; head < (group + 1) * shared; head++)
        for (int64_t first = 0; first < length; first += 8) {
            const int64_t found = length - first < 8 ? length - first : 8;
            const int64_t seen = g->is_causal ? first + found : length;
            const float *rows[8];
            float sums[8];
            wide tile[8];
            for (int q = 0; q < 8; q++) /* the last one again where there are fewer */
                rows[q] = g->queries + head * width +
                          (start + first + (q < found ? q : found - 1)) * step;
            for (int64_t j = 0; j < seen; j += WIDE) {
                multiply_tile(rows, key_columns + j, columns, width, tile);
                for (int q = 0; q < 8; q++)
                    *(wide *)(scores + q * columns + j) = tile[q];
            }
            for (int q = 0; q < 8; q++) {
                rows[q] = scores + q * columns;
                sums[q] = weigh(scores + q * columns,
                                g->is_causal && first + q < seen ? first + q + 1 : seen, seen);
            }
            for (int64_t d = 0; d < width; d += WIDE) {
                multiply_tile(rows, own_values + d, key_step, seen, tile);
                for (int64_t q = 0; q < found; q++)
                    *(wide *)(g->mixed + (start + first + q) * step + head * width + d) =
                        tile[q] / sums[q];
            }
        }
}

void millpond_attend(const float *queries, const float *keys, const float *values,
                     const int32_t *offsets, int64_t texts, int64_t heads, int64_t key_heads,
                     int64_t width, float scaling, int64_t is_causal, float *mixed,
                     float *scratch, int64_t stride, int64_t threads)
{
    const struct attention given = {queries,   keys,  values,  offsets,   heads,
                                    key_heads, width, scaling, is_causal, mixed};
    for_rows(attend_group, &given, texts * key_heads, 1, scratch, stride, threads);
}
