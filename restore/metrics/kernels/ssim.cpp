#if defined(__AVX512F__) && !defined(__clang__)
#pragma GCC target("prefer-vector-width=512")
#endif
// The sum of a structural-similarity map, one column of tiles at a time: the windowed means of the
// last 2·R + 1 rows wait in a ring that fits the cache, so nothing of the image's size is written.
// All arithmetic is float64.

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

constexpr long TILE = 256;  // output columns that are handled together
constexpr int MAPS = 4;     // a, b, a² + b², a·b

enum Border { VALID = 0, ZERO = 1, REPLICATE = 2 };

struct View {
    const void *data;
    long row, pixel, channel;  // strides in elements
};

struct Job {
    View a, b;
    long height, width, channels;
    double peak, top;  // values are limited to 0..peak; top: what the type holds at most
    bool luma;         // the one plane is BT.601 luma of three channels
    Border border;
    double unbias;  // of the covariance: N / (N - 1), or 1
    const double *taps, *mix;  // mix: channels × channels weights, or null
};

template <int STEP>
inline long at(long x, long pixel) {
    return STEP ? x * STEP : x * pixel;
}

template <class T, int STEP>
void read_plane(const T *row, long pixel, long from, long to, double peak, double *out) {
    for (long x = from; x < to; ++x) {
        const double v = double(row[at<STEP>(x, pixel)]);
        out[x - from] = v < 0 ? 0 : v > peak ? peak : v;
    }
}

template <class T, int STEP>
void read_luma(const T *row, const View &view, long from, long to, double top, double *out) {
    const T *red = row, *green = row + view.channel, *blue = row + 2 * view.channel;
    for (long x = from; x < to; ++x) {
        const long i = at<STEP>(x, view.pixel);
        out[x - from] =
            (65.481 * red[i] + 128.553 * green[i] + 24.966 * blue[i]) / top + 16.0;
    }
}

// Columns first .. first + count of one row, those outside the image by the border's rule.
template <class T>
void read_row(const Job &job, const View &view, long channel, long y, long first, long count,
              double *out) {
    if (job.border == ZERO && (y < 0 || y >= job.height)) {
        std::fill(out, out + count, 0.0);
        return;
    }
    y = std::clamp(y, 0L, job.height - 1);
    const T *row = static_cast<const T *>(view.data) + y * view.row + channel * view.channel;
    const long from = std::max(first, 0L), to = std::min(first + count, job.width);
    double *inside = out + (from - first);
    if (job.luma && view.pixel == 3)
        read_luma<T, 3>(row, view, from, to, job.top, inside);
    else if (job.luma)
        read_luma<T, 0>(row, view, from, to, job.top, inside);
    else if (view.pixel == 1)
        read_plane<T, 1>(row, 1, from, to, job.peak, inside);
    else if (view.pixel == 3)
        read_plane<T, 3>(row, 3, from, to, job.peak, inside);
    else
        read_plane<T, 0>(row, view.pixel, from, to, job.peak, inside);
    const bool zero = job.border == ZERO;
    std::fill(out, inside, zero ? 0.0 : inside[0]);
    std::fill(inside + (to - from), out + count, zero ? 0.0 : inside[to - from - 1]);
}

template <int R>
void across(const double *__restrict in, const double *taps, long count, double *__restrict out) {
    for (long x = 0; x < count; ++x) {
        double sum = taps[R] * in[x + R];
        for (int k = 1; k <= R; ++k) sum += taps[R - k] * (in[x + R - k] + in[x + R + k]);
        out[x] = sum;
    }
}

template <int R>
void down(const double *const *rows, const double *taps, long count, double *__restrict out) {
    const double *r[2 * R + 1];
    for (int k = 0; k <= 2 * R; ++k) r[k] = rows[k];
    for (long x = 0; x < count; ++x) {
        double sum = taps[R] * r[R][x];
        for (int k = 1; k <= R; ++k) sum += taps[R - k] * (r[R - k][x] + r[R + k][x]);
        out[x] = sum;
    }
}

// The similarity of one row of windows, summed. means: MAPS rows of TILE numbers.
double similarity(const Job &job, const double *means, long count, double *__restrict values) {
    const double c1 = 1e-4 * job.peak * job.peak, c2 = 9e-4 * job.peak * job.peak;
    const double *mean_a = means, *mean_b = means + TILE, *squares = means + 2 * TILE,
                 *products = means + 3 * TILE;
    for (long x = 0; x < count; ++x) {
        const double both = mean_a[x] * mean_b[x];
        const double square = mean_a[x] * mean_a[x] + mean_b[x] * mean_b[x];
        const double covariance = job.unbias * (products[x] - both);
        const double variances = job.unbias * (squares[x] - square);
        values[x] = (2 * both + c1) * (2 * covariance + c2) / ((square + c1) * (variances + c2));
    }
    double lanes[8] = {};
    long x = 0;
    for (; x + 8 <= count; x += 8)
        for (int k = 0; k < 8; ++k) lanes[k] += values[x + k];
    double sum = 0;
    for (; x < count; ++x) sum += values[x];
    for (double lane : lanes) sum += lane;
    return sum;
}

// Means of the channels' windows -> means of windows that reach over the channels, too.
void blend(const Job &job, const std::vector<double> &means, std::vector<double> &blended) {
    const long plane = MAPS * TILE;
    for (long c = 0; c < job.channels; ++c)
        for (long i = 0; i < plane; ++i) {
            double sum = 0;
            for (long j = 0; j < job.channels; ++j)
                sum += job.mix[c * job.channels + j] * means[j * plane + i];
            blended[c * plane + i] = sum;
        }
}

// `group` channels are walked together from `channel` on: all of them where they are mixed.
template <class T, int R>
double tile(const Job &job, long channel, long group, long x0, long count) {
    constexpr int WINDOW = 2 * R + 1;
    const long reach = job.border == VALID ? 0 : R;
    const long wide = count + 2 * R, out_rows = job.height - 2 * R + 2 * reach;
    std::vector<double> line(MAPS * (TILE + 2 * R)), values(TILE);
    std::vector<double> ring(group * MAPS * WINDOW * TILE);
    std::vector<double> means(group * MAPS * TILE), blended(job.mix ? means.size() : 0);
    const auto kept = [&](long c, int map, long t) {
        return ring.data() + ((c * MAPS + map) * WINDOW + t % WINDOW) * TILE;
    };
    double *a = line.data(), *b = a + wide, *squares = b + wide, *products = squares + wide;
    double sum = 0;
    for (long t = 0; t < out_rows + 2 * R; ++t) {
        for (long c = 0; c < group; ++c) {
            read_row<T>(job, job.a, channel + c, t - reach, x0 - reach, wide, a);
            read_row<T>(job, job.b, channel + c, t - reach, x0 - reach, wide, b);
            for (long x = 0; x < wide; ++x) {
                squares[x] = a[x] * a[x] + b[x] * b[x];
                products[x] = a[x] * b[x];
            }
            for (int map = 0; map < MAPS; ++map)
                across<R>(a + map * wide, job.taps, count, kept(c, map, t));
        }
        if (t < 2 * R) continue;
        for (long c = 0; c < group; ++c)
            for (int map = 0; map < MAPS; ++map) {
                const double *rows[WINDOW];
                for (int k = 0; k < WINDOW; ++k) rows[k] = kept(c, map, t - 2 * R + k);
                down<R>(rows, job.taps, count, means.data() + (c * MAPS + map) * TILE);
            }
        if (job.mix) blend(job, means, blended);
        const double *found = job.mix ? blended.data() : means.data();
        for (long c = 0; c < group; ++c)
            sum += similarity(job, found + c * MAPS * TILE, count, values.data());
    }
    return sum;
}

template <class T, int R>
double walk(const Job &job) {
    const long columns = job.border == VALID ? job.width - 2 * R : job.width;
    const long planes = job.luma ? 1 : job.channels, group = job.mix ? planes : 1;
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

// kind: 0 uint8, 1 uint16, 2 float32, 3 float64. radius: 5 or 3.
extern "C" double ssim_sum(const void *a, const void *b, const long *strides_a,
                           const long *strides_b, const long *shape, int kind, double peak,
                           int luma, const double *taps, int radius, int border, double unbias,
                           const double *mix) {
    const Job job = {{a, strides_a[0], strides_a[1], strides_a[2]},
                     {b, strides_b[0], strides_b[1], strides_b[2]},
                     shape[0], shape[1], shape[2],
                     peak, kind ? 65535.0 : 255.0, luma != 0, Border(border), unbias, taps, mix};
    if (kind == 0) return of_radius<uint8_t>(job, radius);
    if (kind == 1) return of_radius<uint16_t>(job, radius);
    if (kind == 2) return of_radius<float>(job, radius);
    return of_radius<double>(job, radius);
}
