// What candle calls of cuBLAS and cuRAND.

#include <random>
#include <vector>

#include "device.hpp"
#include "include/narrow.hpp"

namespace {

// cudaDataType_t and cublasComputeType_t.
enum Kind { R_32F = 0, R_16F = 2, R_16BF = 14 };
const int COMPUTE_32F = 68;

struct Handle {
    void *stream = nullptr;
};

struct Generator {
    void *stream = nullptr;
    std::mt19937_64 engine;
};

// A matrix, column after column.
struct Matrix {
    uintptr_t at;
    bool transposed;
    long leading, stride;
};

struct Product {
    long m, n, k, batch;
    float alpha, beta;
    Matrix a, b, c;
};

template <typename T>
std::vector<float> widened(const Matrix &matrix, long batch, long rows, long columns, bool by_rows) {
    const T *from = (const T *)matrix.at + batch * matrix.stride;
    std::vector<float> all(rows * columns);
    for (long i = 0; i < rows; i++) {
        for (long j = 0; j < columns; j++) {
            float value = from[matrix.transposed ? i * matrix.leading + j : j * matrix.leading + i];
            all[by_rows ? i * columns + j : j * rows + i] = value;
        }
    }
    return all;
}

template <typename T>
void multiply(const Product &p) {
    for (long batch = 0; batch < p.batch; batch++) {
        std::vector<float> a = widened<T>(p.a, batch, p.m, p.k, true), b = widened<T>(p.b, batch, p.k, p.n, false);
        T *out = (T *)p.c.at + batch * p.c.stride;
        for (long j = 0; j < p.n; j++) {
            for (long i = 0; i < p.m; i++) {
                float sums[8] = {}, sum = 0;
                const float *x = &a[i * p.k], *y = &b[j * p.k];
                long t = 0;
                for (; t + 8 <= p.k; t += 8) {
                    for (long u = 0; u < 8; u++) sums[u] += x[t + u] * y[t + u];
                }
                for (; t < p.k; t++) sum += x[t] * y[t];
                for (float part : sums) sum += part;
                T &to = out[j * p.c.leading + i];
                to = p.beta == 0 ? p.alpha * sum : p.alpha * sum + p.beta * (float)to;
            }
        }
    }
}

// Bytes from a matrix's beginning to its end.
size_t reach(const Matrix &matrix, long rows, long columns, long batch, size_t size) {
    long lines = matrix.transposed ? rows : columns, length = matrix.transposed ? columns : rows;
    return ((batch - 1) * matrix.stride + (lines - 1) * matrix.leading + length) * size;
}

}  // namespace

extern "C" {

int cublasCreate_v2(void **made) {
    *made = new Handle;
    return SUCCESS;
}

int cublasDestroy_v2(void *handle) {
    delete (Handle *)handle;
    return SUCCESS;
}

int cublasSetStream_v2(void *handle, void *stream) {
    ((Handle *)handle)->stream = stream;
    return SUCCESS;
}

int cublasGemmStridedBatchedEx(void *handle, int trans_a, int trans_b, int m, int n, int k, const void *alpha, const void *a,
                               int kind_a, int lda, long long stride_a, const void *b, int kind_b, int ldb,
                               long long stride_b, const void *beta, void *c, int kind_c, int ldc, long long stride_c,
                               int batch, int compute, int) {
    CALL;
    const int INVALID = 7, UNSUPPORTED = 15;
    Product p{m, n, k, batch, *(const float *)alpha, *(const float *)beta, {(uintptr_t)a, trans_a != 0, lda, stride_a},
              {(uintptr_t)b, trans_b != 0, ldb, stride_b}, {(uintptr_t)c, false, ldc, stride_c}};
    if (compute != COMPUTE_32F || kind_a != kind_b || kind_a != kind_c) {
        refused(NOT_SUPPORTED, "products of types %d and %d to %d in %d", kind_a, kind_b, kind_c, compute);
        return UNSUPPORTED;
    }
    if (lda < (trans_a ? k : m) || ldb < (trans_b ? n : k) || ldc < m) {
        refused(INVALID_VALUE, "leading dimensions %d, %d, %d of a product of %d × %d × %d", lda, ldb, ldc, m, n, k);
        return INVALID;
    }
    size_t size = kind_a == R_32F ? 4 : 2;
    if (!memory.holds(p.a.at, reach(p.a, m, k, batch, size)) || !memory.holds(p.b.at, reach(p.b, k, n, batch, size)) ||
        !memory.holds(p.c.at, reach(p.c, m, n, batch, size))) {
        refused(ILLEGAL_ADDRESS, "a product of %d × %d × %d, %d times, reaches beyond its memory", m, n, k, batch);
        return INVALID;
    }
    Stream &on = stream(((Handle *)handle)->stream);
    on.computes = true;
    switch (kind_a) {
        case R_32F: on.add([=] { multiply<float>(p); }); break;
        case R_16F: on.add([=] { multiply<__half>(p); }); break;
        case R_16BF: on.add([=] { multiply<__nv_bfloat16>(p); }); break;
        default: refused(NOT_SUPPORTED, "products in type %d", kind_a); return UNSUPPORTED;
    }
    return SUCCESS;
}

int curandCreateGenerator(void **made, int) {
    *made = new Generator;
    return SUCCESS;
}

int curandDestroyGenerator(void *generator) {
    delete (Generator *)generator;
    return SUCCESS;
}

int curandSetStream(void *generator, void *stream) {
    ((Generator *)generator)->stream = stream;
    return SUCCESS;
}

int curandSetPseudoRandomGeneratorSeed(void *generator, unsigned long long seed) {
    ((Generator *)generator)->engine.seed(seed);
    return SUCCESS;
}

int curandGenerateNormal(void *generator, float *to, size_t count, float mean, float deviation) {
    CALL;
    const int OUT_OF_RANGE = 104;
    if (count % 2 || !memory.holds((uintptr_t)to, count * sizeof(float))) {
        refused(INVALID_VALUE, "%zu random numbers are odd or reach beyond their memory", count);
        return OUT_OF_RANGE;
    }
    Generator &drawn = *(Generator *)generator;
    std::mt19937_64 engine(drawn.engine());
    stream(drawn.stream).add([=]() mutable {
        std::normal_distribution<float> normal(mean, deviation);
        for (size_t i = 0; i < count; i++) to[i] = normal(engine);
    });
    return SUCCESS;
}

}  // extern "C"
