// Attention along the paths of a tree: a block for each row and head, whose warps share the keys of the row's path. Compiled to
// PTX for devices and, by a test, to C++ for the host.

typedef unsigned int u32;

// Keys that a warp looks at together, for their loads to overlap.
const u32 KEYS = 4;
const u32 WARPS = 8;
const u32 LANES = 32;
// Most numbers of a head that a lane holds: heads have up to 256.
const u32 PARTS = 8;

struct Online {
    float most;
    float sum;
};

// q `[L, H, D]`, k and v `[S, K, D]`, out `[L, H, D]`. `spans`, of each row: so many slots from 0 on, and then those at
// `extra[from..from + count]`.
template <typename T>
__device__ inline void attend(const T *q, const T *k, const T *v, const u32 *spans, const u32 *extra, T *out, u32 heads,
                              u32 kv_heads, u32 dim, float scale) {
    __shared__ Online online[WARPS];
    __shared__ float summed[WARPS * LANES * PARTS];
    u32 head = blockIdx.x, row = blockIdx.y, warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    u32 kv = head / (heads / kv_heads), parts = dim / LANES;
    u32 prefix = spans[3 * row], from = spans[3 * row + 1], length = prefix + spans[3 * row + 2];
    u32 own = (row * heads + head) * dim;
    float query[PARTS], sums[PARTS];
#pragma unroll
    for (u32 i = 0; i < PARTS; i++) {
        query[i] = i < parts ? (float)q[own + i * LANES + lane] * scale : 0.0f;
        sums[i] = 0.0f;
    }
    float most = __uint_as_float(0xff800000u), sum = 0.0f;
    for (u32 first = warp * KEYS; first < length; first += WARPS * KEYS) {
        float score[KEYS], value[KEYS][PARTS];
#pragma unroll
        for (u32 j = 0; j < KEYS; j++) {
            u32 t = first + j < length ? first + j : length - 1;
            u32 slot = t < prefix ? t : extra[from + t - prefix];
            size_t at = ((size_t)slot * kv_heads + kv) * dim + lane;
            score[j] = 0.0f;
#pragma unroll
            for (u32 i = 0; i < PARTS; i++) {
                if (i < parts) {
                    score[j] += query[i] * (float)k[at + i * LANES];
                    value[j][i] = (float)v[at + i * LANES];
                }
            }
        }
#pragma unroll
        for (u32 j = 0; j < KEYS; j++) {
#pragma unroll
            for (u32 other = LANES / 2; other > 0; other /= 2) {
                score[j] += __shfl_xor_sync(0xffffffffu, score[j], other);
            }
        }
#pragma unroll
        for (u32 j = 0; j < KEYS; j++) {
            if (first + j >= length) break;
            float above = score[j] > most ? score[j] : most;
            float kept = expf(most - above), weight = expf(score[j] - above);
            most = above;
            sum = sum * kept + weight;
#pragma unroll
            for (u32 i = 0; i < PARTS; i++) {
                if (i < parts) sums[i] = sums[i] * kept + weight * value[j][i];
            }
        }
    }
    if (lane == 0) online[warp] = Online{most, sum};
    for (u32 i = 0; i < parts; i++) summed[warp * dim + i * LANES + lane] = sums[i];
    __syncthreads();
    for (u32 d = threadIdx.x; d < dim; d += WARPS * LANES) {
        float above = online[0].most, total = 0.0f, all = 0.0f;
        for (u32 w = 1; w < WARPS; w++) above = online[w].most > above ? online[w].most : above;
        for (u32 w = 0; w < WARPS; w++) {
            float share = expf(online[w].most - above);
            total += share * online[w].sum;
            all += share * summed[w * dim + d];
        }
        out[own + d] = (T)(all / total);
    }
}

#define ATTENTION(NAME, T)                                                                                                \
    extern "C" __global__ void NAME(const T *q, const T *k, const T *v, const u32 *spans, const u32 *extra, T *out,       \
                                    u32 heads, u32 kv_heads, u32 dim, float scale) {                                      \
        attend<T>(q, k, v, spans, extra, out, heads, kv_heads, dim, scale);                                               \
    }

ATTENTION(tree_attention_f32, float)

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
ATTENTION(tree_attention_f16, __half)
ATTENTION(tree_attention_bf16, __nv_bfloat16)
#endif
