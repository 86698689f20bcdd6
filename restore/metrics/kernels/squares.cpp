// Sums of squared differences of uint8 RGB images, in integers as long as they are exact.

#include <cstdint>

// Σ (65481·dR + 128553·dG + 24966·dB)²: the squared luma difference times 255000². Pixels are three
// bytes; `row`: bytes from one row to the next. A term is below 2^53, hence exact.
extern "C" double luma_squares(const uint8_t *a, const uint8_t *b, const long *rows, long height,
                               long width) {
    constexpr int LANES = 16;
    double lanes[LANES] = {}, rest = 0;
    for (long y = 0; y < height; ++y) {
        const uint8_t *p = a + y * rows[0], *q = b + y * rows[1];
        long x = 0;
        for (; x + LANES <= width; x += LANES, p += 3 * LANES, q += 3 * LANES) {
            int32_t difference[LANES];
            for (int k = 0; k < LANES; ++k)
                difference[k] = 65481 * (p[3 * k] - q[3 * k]) +
                                128553 * (p[3 * k + 1] - q[3 * k + 1]) +
                                24966 * (p[3 * k + 2] - q[3 * k + 2]);
            for (int k = 0; k < LANES; ++k)
                lanes[k] += double(difference[k]) * double(difference[k]);
        }
        for (; x < width; ++x, p += 3, q += 3) {
            const double d =
                65481 * (p[0] - q[0]) + 128553 * (p[1] - q[1]) + 24966 * (p[2] - q[2]);
            rest += d * d;
        }
    }
    for (double lane : lanes) rest += lane;
    return rest;
}
