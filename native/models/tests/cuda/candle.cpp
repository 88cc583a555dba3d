// Candle's kernels: those that models use, of its own sources.

#include "../kernels/on_host.hpp"
#include "include/narrow.hpp"
#include "include/cuda/std/limits"
#include "table.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <stdint.h>

#define __host__
#define __forceinline__ inline
#define __CUDA_ARCH__ 900
#define __CUDACC_VER_MAJOR__ 13
#define __CUDACC_VER_MINOR__ 0

struct int2 {
    int x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float normcdff(float x) { return 0.5f * std::erfc(-x * (float)M_SQRT1_2); }
inline double normcdf(double x) { return 0.5 * std::erfc(-x * M_SQRT1_2); }
inline int __float_as_int(float x) { return (int)__float_as_uint(x); }
inline float __int_as_float(int bits) { return __uint_as_float((unsigned)bits); }
inline long long __double_as_longlong(double x) {
    long long bits;
    std::memcpy(&bits, &x, 8);
    return bits;
}
inline double __longlong_as_double(long long bits) {
    double x;
    std::memcpy(&x, &bits, 8);
    return x;
}

// Of the four bytes of words.
inline int __dp4a(int a, int b, int sum) {
    for (int i = 0; i < 32; i += 8) sum += (int8_t)(a >> i) * (int8_t)(b >> i);
    return sum;
}
inline int __vsubss4(int a, int b) {
    unsigned all = 0;
    for (int i = 0; i < 32; i += 8) {
        int difference = (int8_t)(a >> i) - (int8_t)(b >> i);
        all |= (unsigned)(uint8_t)std::clamp(difference, -128, 127) << i;
    }
    return (int)all;
}

using std::isnan;
using std::signbit;
template <typename A, typename B> std::common_type_t<A, B> min(A a, B b) { return b < a ? b : a; }
template <typename A, typename B> std::common_type_t<A, B> max(A a, B b) { return a < b ? b : a; }

// One thread runs at a time.
template <typename T, typename U> T atomicAdd(T *at, U value) { return std::exchange(*at, *at + (T)value); }
template <typename T, typename U> T atomicMin(T *at, U value) { return std::exchange(*at, min(*at, (T)value)); }
template <typename T, typename U> T atomicMax(T *at, U value) { return std::exchange(*at, max(*at, (T)value)); }
template <typename T> T atomicCAS(T *at, T old, T value) { return std::exchange(*at, *at == old ? value : *at); }

namespace candle {
namespace affine {
#include "affine.cu"
}
namespace binary {
#include "binary.cu"
}
namespace cast {
#include "cast.cu"
}
namespace fill {
#include "fill.cu"
}
namespace indexing {
#include "indexing.cu"
}
namespace quantized {
#include "quantized.cu"
}
namespace reduce {
#include "reduce.cu"
}
namespace ternary {
#include "ternary.cu"
}
namespace unary {
#include "unary.cu"
}
}  // namespace candle

Kernels candle_kernels() {
    using namespace candle::affine;
    using namespace candle::binary;
    using namespace candle::cast;
    using namespace candle::fill;
    using namespace candle::indexing;
    using namespace candle::quantized;
    using namespace candle::reduce;
    using namespace candle::ternary;
    using namespace candle::unary;
#define EACH(KIND, NAME) KIND(NAME##_f32), KIND(NAME##_f16), KIND(NAME##_bf16)
    return {
        EACH(ALONE, affine),      EACH(ALONE, badd),         EACH(ALONE, bsub),        EACH(ALONE, bmul),
        EACH(ALONE, bdiv),        EACH(ALONE, copy2d),       EACH(ALONE, const_set),   EACH(ALONE, is_u32),
        EACH(ALONE, ucopy),       EACH(ALONE, urelu),        EACH(ALONE, usilu),       EACH(ALONE, rope_thd),
        EACH(TOGETHER, rmsnorm),  EACH(TOGETHER, layernorm), EACH(TOGETHER, softmax),  ALONE(ucos_f32),
        ALONE(usin_f32),          ALONE(cast_f32_f16),       ALONE(cast_f32_bf16),     ALONE(cast_f16_f32),
        ALONE(cast_bf16_f32),     ALONE(cast_u8_f32),
        // Of blocks.
        TOGETHER(dequantize_block_q8_0_f32),
        TOGETHER(dequantize_block_q4_K_f32),
        TOGETHER(dequantize_block_q6_K_f32),
        TOGETHER(dequantize_mul_mat_vec_q8_0_cuda),
        TOGETHER(dequantize_mul_mat_vec_q4_k),
        TOGETHER(dequantize_mul_mat_vec_q6_k),
    };
}
