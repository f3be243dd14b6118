/* The memory-bound parts of a training step, for maps of floats [n, rows, channels] (channels last).

   A batch norm with its activation, sum and pooling is one pass over memory here and up to six in separate operators;
   depthwise convolutions keep their sums in registers. Sums over rows are taken in blocks, and blocks and threads are
   added up in order: the same number of threads gives the same bits. Compiled on the machine that trains. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__) || defined(__AVX__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));
typedef float loose __attribute__((vector_size(LANES * 4), aligned(4)));

enum { NONE, SILU, RELU, RELU6, HARD_SWISH };

/* Rows that are summed in floats before they are added to doubles, and rows that are processed together. */
#define BLOCK 128
#define ROWS 4

#define INLINE static inline __attribute__((always_inline))

INLINE vec load(const float *p, long left) {
    if (left >= LANES) return *(const loose *)p;
    vec v = {0};
    memcpy(&v, p, left * sizeof(float));
    return v;
}

INLINE void store(float *p, vec v, long left) {
    if (left >= LANES) *(loose *)p = v;
    else memcpy(p, &v, left * sizeof(float));
}

INLINE vec same(float value) { return (vec){0} + value; }

/* The processor's minimum, maximum and reciprocal: compiled comparisons and divisions are slower. */
#if defined(__AVX512F__)
INLINE vec least(vec a, vec b) { return (vec)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE vec most(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vec one_over(vec x) {
    vec r = (vec)_mm512_rcp14_ps((__m512)x);
    return r * (2.0f - x * r); /* one Newton step turns 14 correct bits into 24 */
}
#elif defined(__AVX__)
INLINE vec least(vec a, vec b) { return (vec)_mm256_min_ps((__m256)a, (__m256)b); }
INLINE vec most(vec a, vec b) { return (vec)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE vec one_over(vec x) { return 1.0f / x; }
#elif defined(__ARM_NEON)
INLINE vec least(vec a, vec b) { return (vec)vminq_f32((float32x4_t)a, (float32x4_t)b); }
INLINE vec most(vec a, vec b) { return (vec)vmaxq_f32((float32x4_t)a, (float32x4_t)b); }
INLINE vec one_over(vec x) { return 1.0f / x; }
#else
INLINE vec choose(ivec mask, vec a, vec b) { return (vec)((mask & (ivec)a) | (~mask & (ivec)b)); }
INLINE vec least(vec a, vec b) { return choose(b < a, b, a); }
INLINE vec most(vec a, vec b) { return choose(b > a, b, a); }
INLINE vec one_over(vec x) { return 1.0f / x; }
#endif

INLINE vec clamp(vec x, float low, float high) { return least(most(x, same(low)), same(high)); }

/* 1 where the mask is set, else 0. */
INLINE vec indicator(ivec mask) { return (vec)(mask & (ivec)same(1.0f)); }

/* e^x for x in -87..88, to about 2 units in the last place: 2^i times a polynomial on -ln2/2..ln2/2. */
INLINE vec exponential(vec x) {
    x = clamp(x, -87.0f, 88.0f);
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
    vec i = x * 1.44269504088896341f + magic;
    ivec bits = ((ivec)i << 23) + (127 << 23);
    i = i - magic;
    vec r = x - i * 0.693359375f + i * 2.12194440e-4f;
    vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (vec)bits;
}

INLINE vec sigmoid(vec z) { return one_over(1.0f + exponential(-z)); }

/* The activation at z, and its derivative there. */
INLINE vec act_both(vec z, int act, vec *slope) {
    switch (act) {
        case SILU: {
            vec s = sigmoid(z), y = z * s;
            *slope = s + y * (1.0f - s);
            return y;
        }
        case RELU: *slope = indicator(z > 0); return most(z, same(0));
        case RELU6: *slope = indicator((z > 0) & (z < same(6.0f))); return clamp(z, 0.0f, 6.0f);
        case HARD_SWISH: {
            ivec inside = (z > same(-3.0f)) & (z < same(3.0f));
            *slope = (vec)(inside & (ivec)(z * (1.0f / 3.0f) + 0.5f)) + indicator(z >= same(3.0f));
            return z * clamp(z + 3.0f, 0.0f, 6.0f) * (1.0f / 6.0f);
        }
        default: *slope = same(1.0f); return z;
    }
}

INLINE vec act_value(vec z, int act) {
    vec unused;
    return act_both(z, act, &unused);
}

/* The arguments of a pass over a map [n, rows, channels]; those that a pass does not need are null. */
typedef struct {
    long n, rows, channels;
    const float *x, *dy, *dpool, *keep, *shortcut; /* maps, [n, channels], [n], map */
    const float *mean, *scale, *shift, *tilt, *level; /* [channels] */
    float *y, *dx, *pool; /* maps, [n, channels] */
    float *one, *two; /* sums [channels] of a thread */
} Pass;

/* The work of a pass on `count` rows from row r, of image i, and on the channels of one vector. */
typedef void (*Visit)(const Pass *p, long r, long i, long c, long left, int count, int act);

INLINE void visit_channels(const Pass *p, Visit visit, long r, long i, int count, int act) {
    long c = 0;
    for (; c + LANES <= p->channels; c += LANES) visit(p, r, i, c, LANES, count, act);
    if (c < p->channels) visit(p, r, i, c, p->channels - c, count, act);
}

/* Rows are processed ROWS at a time, never from two images: values per channel or per image are read once for all of
   them. */
INLINE void visit_rows(const Pass *p, Visit visit, long first, long end, int act) {
    for (long r = first; r < end;) {
        long i = r / p->rows, stop = (i + 1) * p->rows < end ? (i + 1) * p->rows : end;
        for (; r + ROWS <= stop; r += ROWS) visit_channels(p, visit, r, i, ROWS, act);
        for (; r < stop; r++) visit_channels(p, visit, r, i, 1, act);
    }
}

INLINE void visit_all(const Pass *p, Visit visit, long first, long end, int act) {
    switch (act) {
        case SILU: visit_rows(p, visit, first, end, SILU); break;
        case RELU: visit_rows(p, visit, first, end, RELU); break;
        case RELU6: visit_rows(p, visit, first, end, RELU6); break;
        case HARD_SWISH: visit_rows(p, visit, first, end, HARD_SWISH); break;
        default: visit_rows(p, visit, first, end, NONE);
    }
}

INLINE long begin_of(long count, int part, int parts) { return count * part / parts; }

#ifdef _OPENMP
#include <omp.h>
#define PARALLEL(threads) _Pragma("omp parallel num_threads(threads)")
#define ME omp_get_thread_num()
#define ALL omp_get_num_threads()
#else
#define PARALLEL(threads)
#define ME 0
#define ALL 1
#endif

/* Adds the sums of the other threads to the first one's, in order. */
static void gather(double *sums, long width, int threads) {
    for (int t = 1; t < threads; t++)
        for (long c = 0; c < width; c++) sums[c] += sums[t * width + c];
}

/* Two sums over all rows, by channel: sums [2, channels]; returns 0 if out of memory. */
INLINE int sum_rows(const Pass *pass, Visit visit, double **sums, int act, int threads) {
    long width = 2 * pass->channels, all = pass->n * pass->rows;
    *sums = calloc((size_t)threads * width, sizeof(double));
    float *parts = calloc((size_t)threads * width, sizeof(float));
    if (!*sums || !parts) return free(*sums), free(parts), 0;
    PARALLEL(threads) {
        Pass own = *pass;
        double *sum = *sums + ME * width;
        float *part = parts + ME * width;
        own.one = part, own.two = part + pass->channels;
        long last = begin_of(all, ME + 1, ALL);
        for (long from = begin_of(all, ME, ALL), to; from < last; from = to) {
            to = from + BLOCK < last ? from + BLOCK : last;
            visit_all(&own, visit, from, to, act);
            for (long c = 0; c < width; c++) sum[c] += part[c], part[c] = 0;
        }
    }
    gather(*sums, width, threads);
    free(parts);
    return 1;
}

INLINE void moments(const Pass *p, long r, long i, long c, long left, int count, int act) {
    (void)i, (void)act;
    /* Shifted by the first row, so that squares of a large mean do not hide a small variance. */
    vec base = load(p->x + c, left), one = load(p->one + c, left), two = load(p->two + c, left);
    for (int k = 0; k < count; k++) {
        vec away = load(p->x + (r + k) * p->channels + c, left) - base;
        one += away;
        two += away * away;
    }
    store(p->one + c, one, left);
    store(p->two + c, two, left);
}

/* mean and biased variance [channels] of x [rows, channels]; returns 0 if out of memory. */
int effnet_moments(const float *x, long rows, long channels, float *mean, float *var, int threads) {
    Pass pass = {.n = 1, .rows = rows, .channels = channels, .x = x};
    double *sums;
    if (!sum_rows(&pass, moments, &sums, NONE, threads)) return 0;
    for (long c = 0; c < channels; c++) {
        double m = sums[c] / rows, v = sums[channels + c] / rows - m * m;
        mean[c] = (float)(m + x[c]);
        var[c] = (float)(v > 0 ? v : 0);
    }
    free(sums);
    return 1;
}

INLINE void forward(const Pass *p, long r, long i, long c, long left, int count, int act) {
    vec a = load(p->scale + c, left), b = load(p->shift + c, left), total = same(0);
    for (int k = 0; k < count; k++) {
        long at = (r + k) * p->channels + c;
        vec v = act_value(load(p->x + at, left) * a + b, act);
        total += v;
        if (p->keep) v = v * p->keep[i];
        if (p->shortcut) v = v + load(p->shortcut + at, left);
        if (p->y) store(p->y + at, v, left);
    }
    float *pool = p->pool + i * p->channels + c;
    if (p->pool) store(pool, load(pool, left) + total * (1.0f / p->rows), left);
}

/* y = act(x * scale + shift) * keep[n] + shortcut; pool [n, channels] gets the mean over rows of act. keep, shortcut, y
   and pool may be null. */
int effnet_norm_act(const float *x, const float *scale, const float *shift, const float *keep, const float *shortcut,
                    float *y, float *pool, long n, long rows, long channels, int act, int threads) {
    Pass pass = {.n = n, .rows = rows, .channels = channels, .x = x, .scale = scale, .shift = shift, .keep = keep,
                 .shortcut = shortcut, .y = y, .pool = pool};
    if (pool) memset(pool, 0, n * channels * sizeof(float));
    PARALLEL(threads) {
        /* Whole images if pools are requested, else equal shares of all rows. */
        long unit = pool ? rows : 1, units = n * rows / unit;
        visit_all(&pass, forward, begin_of(units, ME, ALL) * unit, begin_of(units, ME + 1, ALL) * unit, act);
    }
    return 1;
}

/* The gradient that reaches act: dy * keep[n] + dpool / rows. */
INLINE vec incoming(const Pass *p, long at, long i, long c, long left) {
    vec d = p->dy ? load(p->dy + at, left) : same(0);
    if (p->keep) d = d * p->keep[i];
    if (p->dpool) d = d + load(p->dpool + i * p->channels + c, left) * (1.0f / p->rows);
    return d;
}

INLINE void backward_sums(const Pass *p, long r, long i, long c, long left, int count, int act) {
    vec m = load(p->mean + c, left), a = load(p->scale + c, left), b = load(p->shift + c, left);
    vec one = load(p->one + c, left), two = load(p->two + c, left);
    for (int k = 0; k < count; k++) {
        long at = (r + k) * p->channels + c;
        vec slope, away = load(p->x + at, left) - m;
        vec v = act_both(away * a + b, act, &slope), d = incoming(p, at, i, c, left) * slope;
        one += d * away;
        two += d;
        if (p->y) store(p->y + at, v, left);
    }
    store(p->one + c, one, left);
    store(p->two + c, two, left);
}

/* dweight = sum of dz * xhat, dbias = sum of dz, where z = xhat * weight + bias and xhat = (x - mean) * inv. If `y` is
   not null, it gets act(z). Returns 0 if out of memory. */
int effnet_norm_act_sums(const float *x, const float *dy, const float *dpool, const float *keep, const float *mean,
                         const float *inv, const float *weight, const float *bias, float *dweight, float *dbias,
                         float *y, long n, long rows, long channels, int act, int threads) {
    float *scale = malloc(channels * sizeof(float));
    if (!scale) return 0;
    for (long c = 0; c < channels; c++) scale[c] = inv[c] * weight[c];
    Pass pass = {.n = n, .rows = rows, .channels = channels, .x = x, .dy = dy, .dpool = dpool, .keep = keep,
                 .mean = mean, .scale = scale, .shift = bias, .y = y};
    double *sums;
    int done = sum_rows(&pass, backward_sums, &sums, act, threads);
    for (long c = 0; done && c < channels; c++) {
        dweight[c] = (float)(sums[c] * inv[c]);
        dbias[c] = (float)sums[channels + c];
    }
    free(scale);
    if (done) free(sums);
    return done;
}

/* dx = dz * scale - (x - mean) * tilt - level */
INLINE void backward(const Pass *p, long r, long i, long c, long left, int count, int act) {
    vec m = load(p->mean + c, left), a = load(p->scale + c, left), b = load(p->shift + c, left);
    vec tilt = load(p->tilt + c, left), level = load(p->level + c, left);
    for (int k = 0; k < count; k++) {
        long at = (r + k) * p->channels + c;
        vec slope, away = load(p->x + at, left) - m;
        act_both(away * a + b, act, &slope);
        store(p->dx + at, incoming(p, at, i, c, left) * slope * a - away * tilt - level, left);
    }
}

/* dx of a norm with batch statistics (or with frozen ones: dweight and dbias null), after effnet_norm_act_sums. dx may be
   dy. Returns 0 if out of memory. */
int effnet_norm_act_backward(const float *x, const float *dy, const float *dpool, const float *keep,
                             const float *mean, const float *inv, const float *weight, const float *bias,
                             const float *dweight, const float *dbias, float *dx, long n, long rows, long channels,
                             int act, int threads) {
    float *scale = malloc(3 * channels * sizeof(float)), over = 1.0f / (n * rows);
    if (!scale) return 0;
    float *tilt = scale + channels, *level = tilt + channels;
    for (long c = 0; c < channels; c++) {
        scale[c] = inv[c] * weight[c];
        tilt[c] = dweight ? scale[c] * inv[c] * dweight[c] * over : 0;
        level[c] = dweight ? scale[c] * dbias[c] * over : 0;
    }
    Pass pass = {.n = n, .rows = rows, .channels = channels, .x = x, .dy = dy, .dpool = dpool, .keep = keep,
                 .mean = mean, .scale = scale, .shift = bias, .tilt = tilt, .level = level, .dx = dx};
    PARALLEL(threads) {
        visit_all(&pass, backward, begin_of(n * rows, ME, ALL), begin_of(n * rows, ME + 1, ALL), act);
    }
    free(scale);
    return 1;
}

INLINE void scale_rows(const Pass *p, long r, long i, long c, long left, int count, int act) {
    (void)act;
    vec gate = load(p->scale + i * p->channels + c, left);
    for (int k = 0; k < count; k++) {
        long at = (r + k) * p->channels + c;
        store(p->y + at, load(p->x + at, left) * gate, left);
    }
}

/* y = x * gate[n, channels] for every row. */
int effnet_scale(const float *x, const float *gate, float *y, long n, long rows, long channels, int threads) {
    Pass pass = {.n = n, .rows = rows, .channels = channels, .x = x, .scale = gate, .y = y};
    PARALLEL(threads) {
        visit_rows(&pass, scale_rows, begin_of(n * rows, ME, ALL), begin_of(n * rows, ME + 1, ALL), NONE);
    }
    return 1;
}

INLINE void scale_backward(const Pass *p, long r, long i, long c, long left, int count, int act) {
    (void)act;
    vec gate = load(p->scale + i * p->channels + c, left), sum = load(p->pool + i * p->channels + c, left);
    for (int k = 0; k < count; k++) {
        long at = (r + k) * p->channels + c;
        vec v = load(p->x + at, left), d = load(p->dx + at, left);
        sum += d * v;
        store(p->dx + at, d * gate, left);
        store(p->y + at, v * gate, left);
    }
    store(p->pool + i * p->channels + c, sum, left);
}

/* dy becomes dx = dy * gate, dgate the sum of dy * x over rows, and y = x * gate is recomputed. */
int effnet_scale_backward(const float *x, const float *gate, float *dy, float *dgate, float *y, long n, long rows,
                          long channels, int threads) {
    Pass pass = {.n = n, .rows = rows, .channels = channels, .x = x, .scale = gate, .dx = dy, .pool = dgate, .y = y};
    memset(dgate, 0, n * channels * sizeof(float));
    PARALLEL(threads) {
        visit_rows(&pass, scale_backward, begin_of(n, ME, ALL) * rows, begin_of(n, ME + 1, ALL) * rows, NONE);
    }
    return 1;
}
