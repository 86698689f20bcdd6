// Integers, pixel by pixel, to floats in [0, 1], plane by plane.

#include <cmath>
#include <cstdint>

namespace {

// value / peak as division rounds it, in multiplications: a product, and what it leaves of the value.
inline float quotient(float value, float peak, float reciprocal) {
    const float near = value * reciprocal;
    return std::fma(std::fma(-near, peak, value), reciprocal, near);
}

template <typename T, int CHANNELS>
void make(const char *in, long next, long height, long width, float peak, float *__restrict out) {
    const float reciprocal = 1 / peak;
    const long plane = height * width;
    for (long y = 0; y < height; ++y, in += next, out += width) {
        const T *__restrict row = reinterpret_cast<const T *>(in);
        for (long x = 0; x < width; ++x)
            for (int c = 0; c < CHANNELS; ++c)
                out[c * plane + x] = quotient(row[x * CHANNELS + c], peak, reciprocal);
    }
}

template <typename T>
void make(const char *in, long next, long height, long width, int channels, float peak,
          float *out) {
    if (channels == 1) make<T, 1>(in, next, height, width, peak, out);
    if (channels == 3) make<T, 3>(in, next, height, width, peak, out);
}

}  // namespace

// in: height rows of width pixels of 1 or 3 numbers of 8 or 16 bits, `next` bytes from one row to
// the next. out: channels × height × width.
extern "C" void image_floats(const char *in, long next, long height, long width, int channels,
                             int bits, float *out) {
    if (bits == 8) make<uint8_t>(in, next, height, width, channels, 255, out);
    if (bits == 16) make<uint16_t>(in, next, height, width, channels, 65535, out);
}
