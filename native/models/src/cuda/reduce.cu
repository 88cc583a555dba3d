// The best tokens of rows of logits, with or without the noise of their draw: what `decoding::reduced` finds on whole rows, to
// the bit. Compiled without fused multiply-adds, to PTX for devices and, by a test, to C++ for the host.

typedef unsigned int u32;
typedef unsigned long long u64;

const u32 NONE = 0xffffffffu;
// Threads of a block, and tokens that one looks at.
const u32 THREADS = 256;
const u32 CHUNK = 4096;

// As `decoding::noise::ln`.
__device__ inline float ln(float x) {
    u32 bits = __float_as_uint(x);
    float exponent = (float)((int)(bits >> 23) - 126);
    float m = __uint_as_float((bits & 0x007fffffu) | 0x3f000000u);
    if (m < 0.70710678118654752440f) {
        exponent -= 1.0f;
        m = m + m - 1.0f;
    } else {
        m -= 1.0f;
    }
    float z = m * m;
    float y = 7.0376836e-2f;
    y = y * m + -1.151461e-1f;
    y = y * m + 1.16769987e-1f;
    y = y * m + -1.2420141e-1f;
    y = y * m + 1.4249323e-1f;
    y = y * m + -1.6668058e-1f;
    y = y * m + 2.0000715e-1f;
    y = y * m + -2.4999994e-1f;
    y = y * m + 3.333333e-1f;
    y = y * m * z;
    y += exponent * -2.1219444e-4f;
    y += -0.5f * z;
    return m + y + exponent * 0.6933594f;
}

// As `decoding::noise::philox4x32_10`, its first word.
__device__ inline u32 philox(u32 c0, u32 c1, u32 c2, u32 c3, u32 k0, u32 k1) {
    for (int round = 0; round < 10; round++) {
        if (round > 0) {
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        u64 a = (u64)c0 * 0xD2511F53u;
        u64 b = (u64)c2 * 0xCD9E8D57u;
        u32 n0 = (u32)(b >> 32) ^ c1 ^ k0;
        u32 n2 = (u32)(a >> 32) ^ c3 ^ k1;
        c0 = n0;
        c1 = (u32)b;
        c2 = n2;
        c3 = (u32)a;
    }
    return c0;
}

// As `decoding::Noise::gumbel`.
__device__ inline float gumbel(u32 seed_low, u32 seed_high, u32 position, u32 token, u32 choice) {
    u32 k = philox(position, token, choice, 0, seed_low, seed_high) >> 9;
    float u = (float)(2 * k + 1) * (1.0f / 16777216.0f);
    return -ln(-ln(u));
}

__device__ inline bool better(float score, u32 token, float than, u32 its) {
    return token != NONE && (its == NONE || score > than || (score == than && token < its));
}

// Moves the `count` best of what a block holds to `out_tokens` and `out_scores`, best first, of equals those of lower id.
// Thread t owns the entries t, t + THREADS, ….
__device__ inline void select(float *scores, u32 *tokens, u32 held, u32 count, u32 *out_tokens, u32 *out_scores) {
    __shared__ u32 place[THREADS];
    u32 me = threadIdx.x;
    for (u32 rank = 0; rank < count; rank++) {
        u32 best = me;
        for (u32 i = me + THREADS; i < held; i += THREADS) {
            if (better(scores[i], tokens[i], scores[best], tokens[best])) best = i;
        }
        place[me] = best;
        __syncthreads();
        for (u32 half = THREADS / 2; half > 0; half /= 2) {
            if (me < half) {
                u32 a = place[me], b = place[me + half];
                if (better(scores[b], tokens[b], scores[a], tokens[a])) place[me] = b;
            }
            __syncthreads();
        }
        if (me == 0) {
            u32 won = place[0];
            out_tokens[rank] = tokens[won];
            out_scores[rank] = __float_as_uint(scores[won]);
            tokens[won] = NONE;
        }
        __syncthreads();
    }
}

// Block (chunk, row): the `count` best of a chunk of a row. With noise: by logit / temperature + G, at temperature 0 by logit.
// `sums`: of exp((logit - the chunk's best) / temperature), and that best, if it is not null.
extern "C" __global__ void best_of_chunks(const float *logits, u32 vocab, const u32 *positions, u32 noisy, float temperature,
                                          u32 seed_low, u32 seed_high, u32 choice, u32 count, u32 *out_tokens,
                                          u32 *out_scores, float *sums) {
    __shared__ float scores[CHUNK];
    __shared__ u32 tokens[CHUNK];
    __shared__ float partial[THREADS];
    u32 me = threadIdx.x, chunk = blockIdx.x, row = blockIdx.y, at = row * gridDim.x + chunk;
    const float none = __uint_as_float(0xff800000u);
    for (u32 i = me; i < CHUNK; i += THREADS) {
        u32 token = chunk * CHUNK + i;
        float score = token < vocab ? logits[(u64)row * vocab + token] : none;
        bool allowed = score > none;
        if (allowed && noisy && temperature > 0.0f) {
            score = score / temperature + gumbel(seed_low, seed_high, positions[row], token, choice);
        }
        scores[i] = score;
        tokens[i] = allowed ? token : NONE;
    }
    if (sums) {
        float best = none;
        for (u32 i = me; i < CHUNK; i += THREADS) best = scores[i] > best ? scores[i] : best;
        partial[me] = best;
        __syncthreads();
        for (u32 half = THREADS / 2; half > 0; half /= 2) {
            if (me < half && partial[me + half] > partial[me]) partial[me] = partial[me + half];
            __syncthreads();
        }
        best = partial[0];
        __syncthreads();
        float sum = 0.0f;
        for (u32 i = me; i < CHUNK; i += THREADS) {
            if (tokens[i] != NONE) sum += expf((scores[i] - best) / temperature);
        }
        partial[me] = sum;
        __syncthreads();
        for (u32 half = THREADS / 2; half > 0; half /= 2) {
            if (me < half) partial[me] += partial[me + half];
            __syncthreads();
        }
        if (me == 0) {
            sums[2 * at] = best;
            sums[2 * at + 1] = partial[0];
        }
    }
    __syncthreads();
    select(scores, tokens, CHUNK, count, out_tokens + at * count, out_scores + at * count);
}

// Block (row): the `count` best of what the chunks of a row gave, `given` in all, at most CHUNK.
extern "C" __global__ void best_of_rows(const u32 *in_tokens, const u32 *in_scores, u32 given, u32 count, u32 *out_tokens,
                                        u32 *out_scores) {
    __shared__ float scores[CHUNK];
    __shared__ u32 tokens[CHUNK];
    u32 me = threadIdx.x, row = blockIdx.x;
    for (u32 i = me; i < CHUNK; i += THREADS) {
        bool there = i < given;
        scores[i] = there ? __uint_as_float(in_scores[row * given + i]) : 0.0f;
        tokens[i] = there ? in_tokens[row * given + i] : NONE;
    }
    __syncthreads();
    select(scores, tokens, CHUNK, count, out_tokens + row * count, out_scores + row * count);
}
