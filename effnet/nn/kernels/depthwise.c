/* Depthwise convolutions of maps [n, height, width, channels] with kernels [size * size, channels]. */

typedef struct {
    long n, height, width, channels, out_height, out_width, size, stride, top, left;
} Shape;

/* The taps of one axis inside the map: of `size` taps from `start`, those in first..last (last excluded). */
#define TAPS(first, last, start, extent) \
    long first = start < 0 ? -start : 0; \
    long last = start + k > extent ? extent - start : k;

/* Channels are taken in chunks of up to 4 vectors, whose sums stay in registers. */
#define CHUNK(body) \
    for (; c + 4 * LANES <= s.channels; c += 4 * LANES) { body(4) } \
    for (; c + 2 * LANES <= s.channels; c += 2 * LANES) { body(2) } \
    for (; c + LANES <= s.channels; c += LANES) { body(1) } \
    if (c < s.channels) { body(0) }

INLINE void forward_pixel(Shape s, long k, const float *x, const float *w, float *y, long oh, long ow) {
    long ih = oh * s.stride - s.top, iw = ow * s.stride - s.left, c = 0;
    TAPS(h0, h1, ih, s.height)
    TAPS(w0, w1, iw, s.width)
#define PIXEL(V) \
    vec acc[V ? V : 1]; \
    for (int v = 0; v < (V ? V : 1); v++) acc[v] = (vec){0}; \
    for (long a = h0; a < h1; a++) \
        for (long b = w0; b < w1; b++) { \
            const float *from = x + ((ih + a) * s.width + iw + b) * s.channels + c, *tap = w + (a * k + b) * s.channels + c; \
            for (int v = 0; v < (V ? V : 1); v++) \
                acc[v] += load(from + v * LANES, V ? LANES : s.channels - c) * load(tap + v * LANES, V ? LANES : s.channels - c); \
        } \
    for (int v = 0; v < (V ? V : 1); v++) store(y + c + v * LANES, acc[v], V ? LANES : s.channels - c);
    CHUNK(PIXEL)
}

/* y = the convolution of x with w, padded with zeros: `top` rows above and `left` columns before. */
int effnet_depthwise(Shape s, const float *x, const float *w, float *y, int threads) {
    PARALLEL(threads) {
        long rows = s.n * s.out_height, end = begin_of(rows, ME + 1, ALL);
        for (long r = begin_of(rows, ME, ALL); r < end; r++) {
            const float *image = x + r / s.out_height * s.height * s.width * s.channels;
            for (long ow = 0; ow < s.out_width; ow++) {
                float *to = y + (r * s.out_width + ow) * s.channels;
                if (s.size == 3) forward_pixel(s, 3, image, w, to, r % s.out_height, ow);
                else if (s.size == 5) forward_pixel(s, 5, image, w, to, r % s.out_height, ow);
                else forward_pixel(s, s.size, image, w, to, r % s.out_height, ow);
            }
        }
    }
    return 1;
}

/* dx at (ih, iw): the taps a whose output row oh = (ih + top - a) / stride is an integer inside the map. */
INLINE void backward_pixel(Shape s, long k, const float *dy, const float *w, float *dx, long ih, long iw) {
    long c = 0;
    long a0 = (ih + s.top) % s.stride, b0 = (iw + s.left) % s.stride;
#define BACK(V) \
    vec acc[V ? V : 1]; \
    for (int v = 0; v < (V ? V : 1); v++) acc[v] = (vec){0}; \
    for (long a = a0; a < k; a += s.stride) { \
        long oh = (ih + s.top - a) / s.stride; \
        if (ih + s.top < a || oh >= s.out_height) continue; \
        for (long b = b0; b < k; b += s.stride) { \
            long ow = (iw + s.left - b) / s.stride; \
            if (iw + s.left < b || ow >= s.out_width) continue; \
            const float *from = dy + (oh * s.out_width + ow) * s.channels + c, *tap = w + (a * k + b) * s.channels + c; \
            for (int v = 0; v < (V ? V : 1); v++) \
                acc[v] += load(from + v * LANES, V ? LANES : s.channels - c) * load(tap + v * LANES, V ? LANES : s.channels - c); \
        } \
    } \
    for (int v = 0; v < (V ? V : 1); v++) store(dx + c + v * LANES, acc[v], V ? LANES : s.channels - c);
    CHUNK(BACK)
}

/* dx of the convolution; returns 0 if out of memory. */
int effnet_depthwise_input(Shape s, const float *dy, const float *w, float *dx, int threads) {
    if (s.stride == 1) { /* the convolution of dy with the flipped kernel */
        long taps = s.size * s.size, turn = s.size - 1;
        float *turned = malloc(taps * s.channels * sizeof(float));
        if (!turned) return 0;
        for (long t = 0; t < taps; t++)
            memcpy(turned + t * s.channels, w + (taps - 1 - t) * s.channels, s.channels * sizeof(float));
        Shape back = {s.n, s.out_height, s.out_width, s.channels, s.height, s.width, s.size, 1, turn - s.top, turn - s.left};
        effnet_depthwise(back, dy, turned, dx, threads);
        free(turned);
        return 1;
    }
    PARALLEL(threads) {
        long rows = s.n * s.height, end = begin_of(rows, ME + 1, ALL);
        for (long r = begin_of(rows, ME, ALL); r < end; r++) {
            const float *image = dy + r / s.height * s.out_height * s.out_width * s.channels;
            for (long iw = 0; iw < s.width; iw++) {
                float *to = dx + (r * s.width + iw) * s.channels;
                if (s.size == 3) backward_pixel(s, 3, image, w, to, r % s.height, iw);
                else if (s.size == 5) backward_pixel(s, 5, image, w, to, r % s.height, iw);
                else backward_pixel(s, s.size, image, w, to, r % s.height, iw);
            }
        }
    }
    return 1;
}

/* Adds one output row's products to dw [k * k] of one vector of channels, all in registers. */
INLINE void weight_row(Shape s, long k, const float *x, const float *dy, vec *acc, long oh, long left) {
    long ih = oh * s.stride - s.top;
    TAPS(h0, h1, ih, s.height)
    for (long ow = 0; ow < s.out_width; ow++) {
        long iw = ow * s.stride - s.left;
        vec d = load(dy + ow * s.channels, left);
        if (h0 == 0 && h1 == k && iw >= 0 && iw + k <= s.width) {
            for (long a = 0; a < k; a++)
                for (long b = 0; b < k; b++)
                    acc[a * k + b] += d * load(x + ((ih + a) * s.width + iw + b) * s.channels, left);
            continue;
        }
        TAPS(w0, w1, iw, s.width)
        for (long a = 0; a < k; a++)
            for (long b = 0; b < k; b++)
                if (a >= h0 && a < h1 && b >= w0 && b < w1)
                    acc[a * k + b] += d * load(x + ((ih + a) * s.width + iw + b) * s.channels, left);
    }
}

/* Adds the products of output rows first..end to sum, for one vector of channels. */
INLINE void weight_rows(Shape s, long k, const float *x, const float *dy, double *sum, long c, long first, long end) {
    long left = s.channels - c, lanes = left < LANES ? left : LANES;
    vec acc[k * k];
    for (long t = 0; t < k * k; t++) acc[t] = (vec){0};
    for (long r = first; r < end; r++)
        weight_row(s, k, x + r / s.out_height * s.height * s.width * s.channels + c, dy + r * s.out_width * s.channels + c,
                   acc, r % s.out_height, left);
    for (long t = 0; t < k * k; t++)
        for (long l = 0; l < lanes; l++) sum[t * s.channels + c + l] += acc[t][l];
}

/* dw [size * size, channels]; returns 0 if out of memory. */
int effnet_depthwise_weight(Shape s, const float *x, const float *dy, float *dw, int threads) {
    long width = s.size * s.size * s.channels, block = 1 + BLOCK / s.out_width;
    double *sums = calloc((size_t)threads * width, sizeof(double));
    if (!sums) return 0;
    PARALLEL(threads) {
        long rows = s.n * s.out_height, last = begin_of(rows, ME + 1, ALL);
        double *sum = sums + ME * width;
        for (long r = begin_of(rows, ME, ALL), end; r < last; r = end) {
            end = r + block < last ? r + block : last;
            for (long c = 0; c < s.channels; c += LANES) {
                if (s.size == 3) weight_rows(s, 3, x, dy, sum, c, r, end);
                else if (s.size == 5) weight_rows(s, 5, x, dy, sum, c, r, end);
                else weight_rows(s, s.size, x, dy, sum, c, r, end);
            }
        }
    }
    gather(sums, width, threads);
    for (long t = 0; t < width; t++) dw[t] = (float)sums[t];
    free(sums);
    return 1;
}
