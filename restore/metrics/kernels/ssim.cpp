// The sum of a structural-similarity map over all windows inside two images. Columns are handled in
// tiles; the windowed means of the last rows wait in a ring that fits the cache, so nothing of the
// image's size is written. All arithmetic is float64.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

// Products are rounded before they are added: then identical images give 1 to the last bit.
#if defined(__clang__)
#define ROUND_PRODUCTS
#pragma clang fp contract(off)
#else
#define ROUND_PRODUCTS __attribute__((optimize("fp-contract=off")))
#endif

namespace {

constexpr long LANES = 8;
constexpr long TILE = 256;   // output columns that are handled together
constexpr long PITCH = TILE + 3 * LANES;  // rows of the ring fall on different cache sets
constexpr int MAPS = 4;      // a, b, a² + b², a·b
constexpr int BLOCK = 4;     // output rows per pass over the ring, which is what the loads cost

typedef double Pack __attribute__((vector_size(LANES * sizeof(double))));

inline Pack load(const double *from) {
    Pack pack;
    std::memcpy(&pack, from, sizeof pack);
    return pack;
}

inline void store(double *to, Pack pack) { std::memcpy(to, &pack, sizeof pack); }

struct View {
    const void *data;
    long row, pixel, channel;  // strides in elements
};

struct Job {
    View a, b;
    long height, width, channels;
    double peak, top;  // values are limited to 0..peak; top: what the type holds at most
    bool luma;         // the one plane is BT.601 luma of three channels
    double unbias;     // of the covariance: N / (N - 1), or 1
    const double *taps, *mix;  // mix: channels × channels weights, or null
};

template <class T, int STEP>  // STEP: the pixel stride where it is known
void read_plane(const T *row, long pixel, long count, double peak, double *__restrict out) {
    for (long x = 0; x < count; ++x) {
        const double v = double(row[x * (STEP ? STEP : pixel)]);
        out[x] = v < 0 ? 0 : v > peak ? peak : v;
    }
}

template <class T, int STEP>
void read_luma(const T *row, const View &view, long count, double top, double *__restrict out) {
    const T *red = row, *green = row + view.channel, *blue = row + 2 * view.channel;
    for (long x = 0; x < count; ++x) {
        const long i = x * (STEP ? STEP : view.pixel);
        out[x] = (65.481 * red[i] + 128.553 * green[i] + 24.966 * blue[i]) / top + 16.0;
    }
}

template <class T>
void read_row(const Job &job, const View &view, long channel, long y, long x, long count,
              double *out) {
    const T *row = static_cast<const T *>(view.data) + y * view.row + x * view.pixel;
    if (job.luma && view.pixel == 3) return read_luma<T, 3>(row, view, count, job.top, out);
    if (job.luma) return read_luma<T, 0>(row, view, count, job.top, out);
    row += channel * view.channel;
    if (view.pixel == 1) return read_plane<T, 1>(row, 1, count, job.peak, out);
    if (view.pixel == 3) return read_plane<T, 3>(row, 3, count, job.peak, out);
    read_plane<T, 0>(row, view.pixel, count, job.peak, out);
}

template <int R>
void across(const double *__restrict in, const double *taps, double *__restrict out) {
    for (long x = 0; x < TILE; x += LANES) {
        Pack sum = taps[R] * load(in + x + R);
        for (int k = 1; k <= R; ++k)
            sum += taps[R - k] * (load(in + x + R - k) + load(in + x + R + k));
        store(out + x, sum);
    }
}

// BLOCK rows of windows from BLOCK + 2·R rows of the ring.
template <int R>
void down(const double *const *rows, const double *taps, double *out, long next) {
    for (long x = 0; x < TILE; x += LANES) {
        Pack sums[BLOCK] = {};
        for (int k = 0; k < BLOCK + 2 * R; ++k) {
            const Pack row = load(rows[k] + x);
            for (int i = 0; i < BLOCK; ++i)
                if (k >= i && k - i <= 2 * R) sums[i] += taps[k - i] * row;
        }
        for (int i = 0; i < BLOCK; ++i) store(out + i * next + x, sums[i]);
    }
}

ROUND_PRODUCTS void multiply(const double *__restrict a, const double *__restrict b, long count,
                             double *__restrict squares, double *__restrict products) {
    for (long x = 0; x < count; ++x) {
        squares[x] = a[x] * a[x] + b[x] * b[x];
        products[x] = a[x] * b[x];
    }
}

// The similarity of `count` windows of one row, summed; `means`: MAPS rows of TILE numbers.
ROUND_PRODUCTS double similarity(const Job &job, const double *means, long count) {
    const double c1 = 1e-4 * job.peak * job.peak, c2 = 9e-4 * job.peak * job.peak;
    double values[TILE];
    for (long x = 0; x < TILE; x += LANES) {
        const Pack mean_a = load(means + x), mean_b = load(means + TILE + x);
        const Pack squares = load(means + 2 * TILE + x), products = load(means + 3 * TILE + x);
        const Pack both = mean_a * mean_b, square = mean_a * mean_a + mean_b * mean_b;
        const Pack covariance = job.unbias * (products - both);
        const Pack variances = job.unbias * (squares - square);
        store(values + x, (2 * both + c1) * (2 * covariance + c2) /
                              ((square + c1) * (variances + c2)));
    }
    Pack lanes = {};
    long x = 0;
    for (; x + LANES <= count; x += LANES) lanes += load(values + x);
    double sum = 0;
    for (; x < count; ++x) sum += values[x];
    for (int lane = 0; lane < LANES; ++lane) sum += lanes[lane];
    return sum;
}

// Means of each channel's windows -> means of windows that reach over the channels, too.
void blend(const Job &job, const double *means, double *blended) {
    const long plane = MAPS * TILE;
    for (long c = 0; c < job.channels; ++c)
        for (long i = 0; i < plane; i += LANES) {
            Pack sum = {};
            for (long j = 0; j < job.channels; ++j)
                sum += job.mix[c * job.channels + j] * load(means + j * plane + i);
            store(blended + c * plane + i, sum);
        }
}

// `group` channels are walked together from `channel` on: all of them where they are mixed.
template <class T, int R>
double tile(const Job &job, long channel, long group, long x0, long count) {
    constexpr int KEPT = BLOCK + 2 * R;
    const long wide = count + 2 * R, line = TILE + 2 * R, plane = MAPS * TILE;
    std::vector<double> lines(MAPS * line), ring(group * MAPS * KEPT * PITCH);
    std::vector<double> means(BLOCK * group * plane), blended(job.mix ? group * plane : 0);
    const auto kept = [&](long c, int map, long y) {
        return ring.data() + ((c * MAPS + map) * KEPT + y % KEPT) * PITCH;
    };
    double *a = lines.data(), *b = a + line, *squares = b + line, *products = squares + line;
    const long out_rows = job.height - 2 * R;
    double sum = 0;
    long read = 0;
    for (long top = 0; top < out_rows; top += BLOCK) {
        const long rows_now = std::min<long>(BLOCK, out_rows - top);
        for (; read < top + rows_now + 2 * R; ++read)
            for (long c = 0; c < group; ++c) {
                read_row<T>(job, job.a, channel + c, read, x0, wide, a);
                read_row<T>(job, job.b, channel + c, read, x0, wide, b);
                multiply(a, b, wide, squares, products);
                for (int map = 0; map < MAPS; ++map)
                    across<R>(a + map * line, job.taps, kept(c, map, read));
            }
        for (long c = 0; c < group; ++c)
            for (int map = 0; map < MAPS; ++map) {
                const double *rows[KEPT];
                for (int k = 0; k < KEPT; ++k) rows[k] = kept(c, map, top + k);
                down<R>(rows, job.taps, means.data() + c * plane + map * TILE, group * plane);
            }
        for (long i = 0; i < rows_now; ++i) {
            const double *found = means.data() + i * group * plane;
            if (job.mix) blend(job, found, blended.data());
            for (long c = 0; c < group; ++c)
                sum += similarity(job, (job.mix ? blended.data() : found) + c * plane, count);
        }
    }
    return sum;
}

template <class T, int R>
double walk(const Job &job) {
    const long columns = job.width - 2 * R, planes = job.luma ? 1 : job.channels;
    const long group = job.mix ? planes : 1;
    double sum = 0;
    for (long channel = 0; channel < planes; channel += group)
        for (long x0 = 0; x0 < columns; x0 += TILE)
            sum += tile<T, R>(job, channel, group, x0, std::min(TILE, columns - x0));
    return sum;
}

template <class T>
double of_radius(const Job &job, int radius) {
    return radius == 5 ? walk<T, 5>(job) : walk<T, 3>(job);
}

}  // namespace

// kind: 0 uint8, 1 uint16, 2 float32, 3 float64. shape: height, width, channels. radius: 5 or 3.
extern "C" double ssim_sum(const void *a, const void *b, const long *strides_a,
                           const long *strides_b, const long *shape, int kind, double peak,
                           int luma, const double *taps, int radius, double unbias,
                           const double *mix) {
    const Job job = {{a, strides_a[0], strides_a[1], strides_a[2]},
                     {b, strides_b[0], strides_b[1], strides_b[2]},
                     shape[0], shape[1], shape[2],
                     peak, kind ? 65535.0 : 255.0, luma != 0, unbias, taps, mix};
    if (kind == 0) return of_radius<uint8_t>(job, radius);
    if (kind == 1) return of_radius<uint16_t>(job, radius);
    if (kind == 2) return of_radius<float>(job, radius);
    return of_radius<double>(job, radius);
}
