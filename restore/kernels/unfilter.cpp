// Undoes the filters of a PNG's rows (W3C PNG, third edition, section 9.2).

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

namespace {

enum Filter : uint8_t { NONE, SUB, UP, AVERAGE, PAETH };

// The neighbour nearest to left + above - corner; left before above before corner.
inline int paeth(int left, int above, int corner) {
    const int to_left = std::abs(above - corner), to_above = std::abs(left - corner);
    const int to_corner = std::abs(left + above - 2 * corner);
    const int nearer = to_above < to_left ? above : left;
    return to_corner < std::min(to_left, to_above) ? corner : nearer;
}

// One row of `count` bytes, PIXEL of them a pixel. The pixel to the left stays in registers.
template <int PIXEL>
bool unfilter(uint8_t filter, const uint8_t *__restrict in, const uint8_t *__restrict above,
              long count, uint8_t *__restrict out) {
    uint8_t left[PIXEL] = {}, corner[PIXEL] = {};
    switch (filter) {
    case NONE:
        for (long x = 0; x < count; ++x) out[x] = in[x];
        return true;
    case SUB:
        for (long x = 0; x < count; x += PIXEL)
            for (int c = 0; c < PIXEL; ++c) out[x + c] = left[c] += in[x + c];
        return true;
    case UP:
        for (long x = 0; x < count; ++x) out[x] = in[x] + above[x];
        return true;
    case AVERAGE:
        for (long x = 0; x < count; x += PIXEL)
            for (int c = 0; c < PIXEL; ++c)
                out[x + c] = left[c] = in[x + c] + (left[c] + above[x + c]) / 2;
        return true;
    case PAETH:
        for (long x = 0; x < count; x += PIXEL)
            for (int c = 0; c < PIXEL; ++c) {
                out[x + c] = left[c] = in[x + c] + paeth(left[c], above[x + c], corner[c]);
                corner[c] = above[x + c];
            }
        return true;
    }
    return false;
}

}  // namespace

// rows: `height` times a filter's number and `count` filtered bytes, `next` bytes from one to the
// next. pixel: 3 or 6 bytes. out: height × count. 0 where there is no filter of a row's number.
extern "C" int png_unfilter(const uint8_t *rows, long next, long height, long count, int pixel,
                            uint8_t *out) {
    const std::vector<uint8_t> zeros(count);
    const uint8_t *above = zeros.data();
    const auto undo = pixel == 3 ? unfilter<3> : unfilter<6>;
    for (long y = 0; y < height; ++y, rows += next, above = out, out += count)
        if (!undo(rows[0], rows + 1, above, count, out)) return 0;
    return 1;
}
