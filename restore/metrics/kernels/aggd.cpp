// Sums over blocks of an image, from which the fits of an asymmetric generalised Gaussian follow.
// Products are float32, as the reference code stores them; sums are float64.

#include <cstdint>
#include <vector>

namespace {

constexpr int LANES = 8;
constexpr int SUMS = 6;  // negative values, positive values, squares of either, |v|, v²

struct Sums {
    double lanes[SUMS][LANES] = {};

    void add(const float *row, const float *other, long width) {
        long x = 0;
        for (; x + LANES <= width; x += LANES)
            for (int k = 0; k < LANES; ++k) one(k, row[x + k] * other[x + k]);
        for (; x < width; ++x) one(0, row[x] * other[x]);
    }

    void one(int k, float v) {
        const float square = v * v;
        lanes[0][k] += v < 0 ? 1 : 0;
        lanes[1][k] += v > 0 ? 1 : 0;
        lanes[2][k] += v < 0 ? square : 0.f;
        lanes[3][k] += v > 0 ? square : 0.f;
        lanes[4][k] += v < 0 ? -v : v;
        lanes[5][k] += square;
    }

    void write(double *out) const {
        for (int s = 0; s < SUMS; ++s) {
            out[s] = 0;
            for (double lane : lanes[s]) out[s] += lane;
        }
    }
};

}  // namespace

// image: `row` floats from one row to the next. out: blocks down × blocks across × 5 × SUMS numbers;
// of the block, and of its products with itself turned around by (0, 1), (1, 0), (1, 1), (1, -1).
extern "C" void aggd_sums(const float *image, long row, long down, long across, long height,
                          long width, double *out) {
    std::vector<float> lines(2 * (width + 2)), ones(width, 1.f);
    for (long by = 0; by < down; ++by)
        for (long bx = 0; bx < across; ++bx, out += 5 * SUMS) {
            const float *block = image + by * height * row + bx * width;
            const auto around = [&](long y, float *line) {
                const float *from = block + (y + height) % height * row;
                line[0] = from[width - 1];
                for (long x = 0; x < width; ++x) line[1 + x] = from[x];
                line[width + 1] = from[0];
            };
            float *above = lines.data(), *here = above + width + 2;
            Sums sums[5];
            for (long y = 0; y < height; ++y) {
                around(y - 1, above);
                around(y, here);
                sums[0].add(here + 1, ones.data(), width);
                sums[1].add(here + 1, here, width);
                sums[2].add(here + 1, above + 1, width);
                sums[3].add(here + 1, above, width);
                sums[4].add(here + 1, above + 2, width);
            }
            for (int map = 0; map < 5; ++map) sums[map].write(out + map * SUMS);
        }
}
