// Runs kernels on the CPU, a block at a time: its threads are fibers that give way to each other where they wait.

#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "fiber.hpp"

#define __device__
#define __global__
#define __shared__ static

struct Index {
    unsigned x = 1, y = 1, z = 1;
    size_t count() const { return (size_t)x * y * z; }
};
inline Index threadIdx, blockIdx, blockDim, gridDim;

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

const unsigned WARP = 32;
const size_t STACK = 64 << 10;

struct Barrier {
    unsigned arrived = 0, generation = 0;
};

// A block at work.
struct Block {
    Fiber scheduler;
    std::vector<Fiber> fibers;
    std::vector<bool> done;
    std::vector<std::vector<char>> stacks;
    unsigned running = 0;
    Barrier barrier;
    std::vector<Barrier> warps;
    // What lanes tell each other, in turns: while one is read the other is written.
    std::vector<uint64_t> exchanged[2];
    std::vector<unsigned> turn;
    std::function<void()> body;
    // Threads that ended or got on, ever.
    size_t progress = 0;
};
inline Block block;

inline Index at(unsigned thread) {
    return Index{thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / blockDim.x / blockDim.y};
}

inline void give_way() {
    unsigned me = block.running;
    block.fibers[me].enter(block.scheduler);
    block.running = me;
    threadIdx = at(me);
}

inline void wait(Barrier &barrier, unsigned members) {
    unsigned generation = barrier.generation;
    if (++barrier.arrived == members) {
        barrier.arrived = 0;
        barrier.generation++;
        block.progress++;
        return;
    }
    while (barrier.generation == generation) give_way();
}

inline void thread() {
    block.body();
    block.done[block.running] = true;
    for (;;) give_way();
}

inline void run_block(unsigned threads) {
    block.fibers.assign(threads, Fiber());
    block.done.assign(threads, false);
    block.turn.assign(threads, 0);
    for (auto &exchanged : block.exchanged) exchanged.assign(threads, 0);
    block.warps.assign((threads + WARP - 1) / WARP, Barrier{});
    block.barrier = Barrier{};
    while (block.stacks.size() < threads) block.stacks.emplace_back(STACK);
    for (unsigned t = 0; t < threads; t++) block.fibers[t].begin(block.stacks[t].data(), STACK, thread);
    for (unsigned left = threads; left > 0;) {
        size_t before = block.progress;
        for (unsigned i = 0; i < threads; i++) {
            // Every other block the last thread first: whoever should wait for another is found out either way.
            unsigned t = (blockIdx.x + blockIdx.y) % 2 ? threads - 1 - i : i;
            if (block.done[t]) continue;
            block.running = t;
            threadIdx = at(t);
            block.scheduler.enter(block.fibers[t]);
            if (block.done[t]) left--, block.progress++;
        }
        if (block.progress == before) {
            std::fprintf(stderr, "%u threads of a block wait for others that have ended\n", left);
            std::abort();
        }
    }
}

// Calls a kernel over a grid; `together`: its threads wait for each other.
inline void launch(Index grid, Index threads, std::function<void()> kernel, bool together = true) {
    block.body = kernel;
    gridDim = grid;
    blockDim = threads;
    for (unsigned z = 0; z < grid.z; z++) {
        for (unsigned y = 0; y < grid.y; y++) {
            for (unsigned x = 0; x < grid.x; x++) {
                blockIdx = Index{x, y, z};
                if (together) {
                    run_block(threads.count());
                    continue;
                }
                for (unsigned t = 0; t < threads.count(); t++) {
                    threadIdx = at(t);
                    block.body();
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
    host::wait(host::block.barrier, (unsigned)host::block.fibers.size());
}

// Lanes of a warp all take part.
template <typename T>
T __shfl_xor_sync(unsigned, T value, unsigned other, unsigned = host::WARP) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "lanes exchange words");
    unsigned me = host::block.running;
    auto &exchanged = host::block.exchanged[host::block.turn[me]++ % 2];
    std::memcpy(&exchanged[me], &value, sizeof(T));
    host::wait(host::block.warps[me / host::WARP], host::WARP);
    T got;
    std::memcpy(&got, &exchanged[me ^ other], sizeof(T));
    return got;
}
