// CUDA's small floats on the host: each operation rounds, as on a device. What its headers have of them and candle's kernels use.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

struct HalfFormat {
    static float widen(uint16_t bits) {
        _Float16 value;
        std::memcpy(&value, &bits, 2);
        return value;
    }
    static uint16_t round(float value) {
        _Float16 rounded = (_Float16)value;
        uint16_t bits;
        std::memcpy(&bits, &rounded, 2);
        return bits;
    }
};

struct BfloatFormat {
    static float widen(uint16_t bits) {
        uint32_t wide = (uint32_t)bits << 16;
        float value;
        std::memcpy(&value, &wide, 4);
        return value;
    }
    // To the nearest, of two the even one.
    static uint16_t round(float value) {
        uint32_t bits;
        std::memcpy(&bits, &value, 4);
        if (std::isnan(value)) return 0x7fff;
        return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    }
};

template <typename Format>
struct Narrow {
    uint16_t bits;
    Narrow() = default;
    Narrow(float value) : bits(Format::round(value)) {}
    Narrow(double value) : Narrow((float)value) {}
    Narrow(int value) : Narrow((float)value) {}
    Narrow(bool value) : Narrow((float)value) {}
    Narrow(unsigned value) : Narrow((float)value) {}
    Narrow(unsigned char value) : Narrow((float)value) {}
    Narrow(short value) : Narrow((float)value) {}
    Narrow(long value) : Narrow((float)value) {}
    operator float() const { return Format::widen(bits); }
    Narrow operator-() const { return -(float)*this; }
    friend Narrow operator+(Narrow a, Narrow b) { return (float)a + (float)b; }
    friend Narrow operator-(Narrow a, Narrow b) { return (float)a - (float)b; }
    friend Narrow operator*(Narrow a, Narrow b) { return (float)a * (float)b; }
    friend Narrow operator/(Narrow a, Narrow b) { return (float)a / (float)b; }
    friend bool operator<(Narrow a, Narrow b) { return (float)a < (float)b; }
    friend bool operator>(Narrow a, Narrow b) { return (float)a > (float)b; }
    friend bool operator<=(Narrow a, Narrow b) { return (float)a <= (float)b; }
    friend bool operator>=(Narrow a, Narrow b) { return (float)a >= (float)b; }
    friend bool operator==(Narrow a, Narrow b) { return (float)a == (float)b; }
    friend bool operator!=(Narrow a, Narrow b) { return (float)a != (float)b; }
    Narrow &operator+=(Narrow other) { return *this = *this + other; }
    Narrow &operator*=(Narrow other) { return *this = *this * other; }
};

typedef Narrow<HalfFormat> __half;
typedef Narrow<BfloatFormat> __nv_bfloat16;

inline float __half2float(__half x) { return x; }
inline __half __float2half(float x) { return x; }
inline float __bfloat162float(__nv_bfloat16 x) { return x; }
inline __nv_bfloat16 __float2bfloat16(float x) { return x; }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return x; }
inline unsigned short __half_as_ushort(__half x) { return x.bits; }
inline __half __ushort_as_half(unsigned short bits) {
    __half x;
    x.bits = bits;
    return x;
}

template <typename F> bool __hisnan(Narrow<F> x) { return std::isnan((float)x); }
template <typename F> Narrow<F> __hmax_nan(Narrow<F> a, Narrow<F> b) { return __hisnan(a) || a > b ? a : b; }
template <typename F> Narrow<F> __hmin_nan(Narrow<F> a, Narrow<F> b) { return __hisnan(a) || a < b ? a : b; }
template <typename F> Narrow<F> __habs(Narrow<F> x) { return std::fabs((float)x); }
template <typename F> Narrow<F> hsqrt(Narrow<F> x) { return std::sqrt((float)x); }
template <typename F> Narrow<F> hcos(Narrow<F> x) { return std::cos((float)x); }
template <typename F> Narrow<F> hsin(Narrow<F> x) { return std::sin((float)x); }
template <typename F> Narrow<F> hlog(Narrow<F> x) { return std::log((float)x); }
template <typename F> Narrow<F> hexp(Narrow<F> x) { return std::exp((float)x); }

struct float2 {
    float x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }

typedef __half half;
struct half2 {
    __half x, y;
};
inline half2 make_half2(__half x, __half y) { return {x, y}; }
inline __half __low2half(half2 pair) { return pair.x; }
inline __half __high2half(half2 pair) { return pair.y; }
inline float __low2float(half2 pair) { return pair.x; }
inline float __high2float(half2 pair) { return pair.y; }
inline float2 __half22float2(half2 pair) { return {pair.x, pair.y}; }

struct __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
inline __nv_bfloat162 __hadd2(__nv_bfloat162 a, __nv_bfloat162 b) { return {a.x + b.x, a.y + b.y}; }
inline __nv_bfloat162 __hmul2(__nv_bfloat162 a, __nv_bfloat162 b) { return {a.x * b.x, a.y * b.y}; }

// Of eight bits: so that what names it compiles; nothing here computes in it.
enum __nv_fp8_interpretation_t { __NV_E4M3 };
struct __nv_fp8_e4m3 {
    uint8_t __x;
    __nv_fp8_e4m3() = default;
    explicit __nv_fp8_e4m3(float) : __x(0x7f) {}
    explicit operator float() const { return std::numeric_limits<float>::quiet_NaN(); }
};
inline __half __nv_cvt_fp8_to_halfraw(uint8_t, __nv_fp8_interpretation_t) {
    return std::numeric_limits<float>::quiet_NaN();
}
