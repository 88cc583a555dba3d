// Runs kernels on the CPU, a block at a time: its threads are fibers that give way to each other where they wait.

#include <ucontext.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <vector>

#define __device__
#define __global__
#define __shared__ static

struct Index {
    unsigned x, y;
};
static Index threadIdx, blockIdx, gridDim;

inline float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

namespace host {

struct Barrier {
    unsigned arrived = 0, generation = 0;
};

static ucontext_t scheduler;
static std::vector<ucontext_t> fibers;
static std::vector<bool> done;
static unsigned running;
static Barrier block_barrier;
static std::vector<Barrier> warp_barriers;
static std::vector<float> exchanged;
static std::function<void()> body;

inline void give_way() {
    unsigned me = running;
    swapcontext(&fibers[me], &scheduler);
    running = me;
    threadIdx.x = me;
}

inline void wait(Barrier &barrier, unsigned members) {
    unsigned generation = barrier.generation;
    if (++barrier.arrived == members) {
        barrier.arrived = 0;
        barrier.generation++;
        return;
    }
    while (barrier.generation == generation) give_way();
}

inline void fiber() {
    body();
    done[running] = true;
    swapcontext(&fibers[running], &scheduler);
}

// Calls a kernel over a grid.
inline void launch(Index grid, unsigned threads, std::function<void()> kernel) {
    const size_t STACK = 64 << 10;
    std::vector<std::vector<char>> stacks(threads, std::vector<char>(STACK));
    body = kernel;
    gridDim = grid;
    for (unsigned y = 0; y < grid.y; y++) {
        for (unsigned x = 0; x < grid.x; x++) {
            blockIdx = Index{x, y};
            fibers.assign(threads, ucontext_t{});
            done.assign(threads, false);
            exchanged.assign(threads, 0.0f);
            warp_barriers.assign((threads + 31) / 32, Barrier{});
            block_barrier = Barrier{};
            for (unsigned t = 0; t < threads; t++) {
                getcontext(&fibers[t]);
                fibers[t].uc_stack.ss_sp = stacks[t].data();
                fibers[t].uc_stack.ss_size = STACK;
                fibers[t].uc_link = &scheduler;
                makecontext(&fibers[t], fiber, 0);
            }
            for (unsigned left = threads; left > 0;) {
                for (unsigned t = 0; t < threads; t++) {
                    if (done[t]) continue;
                    running = t;
                    threadIdx = Index{t, 0};
                    swapcontext(&scheduler, &fibers[t]);
                    if (done[t]) left--;
                }
            }
        }
    }
}

template <typename T>
std::vector<T> read(size_t count) {
    std::vector<T> values(count);
    if (std::fread(values.data(), sizeof(T), count, stdin) != count) std::exit(2);
    return values;
}

template <typename T>
void write(const std::vector<T> &values) {
    std::fwrite(values.data(), sizeof(T), values.size(), stdout);
}

}  // namespace host

inline void __syncthreads() {
    // Threads of a block all take part.
    host::wait(host::block_barrier, (unsigned)host::fibers.size());
}

inline float __shfl_xor_sync(unsigned, float value, unsigned other) {
    unsigned me = threadIdx.x;
    host::Barrier &warp = host::warp_barriers[me / 32];
    host::exchanged[me] = value;
    host::wait(warp, 32);
    float got = host::exchanged[me ^ other];
    host::wait(warp, 32);
    return got;
}
