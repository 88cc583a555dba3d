// The device: memory and streams. Work is queued and done later, in an order that the streams' waiting for each other allows
// and that `SPECULA_CUDA_ORDER` picks: what waits for too little then reads what is not written yet, or is freed already.

#pragma once

#include <cstdint>
#include <cstdio>
#include <deque>
#include <functional>
#include <map>
#include <mutex>

// CUresult.
enum Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_DEVICE = 101,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    NOT_SUPPORTED = 801,
};

// One call at a time.
extern std::recursive_mutex calls;
#define CALL std::lock_guard<std::recursive_mutex> guard(calls)

// Says what is wrong.
template <typename... A>
int refused(Result result, const char *format, A... arguments) {
    std::fprintf(stderr, "software CUDA driver: ");
    std::fprintf(stderr, format, arguments...);
    std::fprintf(stderr, "\n");
    return result;
}

struct Stream;

// A point in a stream's work.
struct Point {
    Stream *stream = nullptr;
    uint64_t at = 0;
    bool reached() const;
    void reach() const;
};

struct Work {
    std::function<void()> act;
    Point after;
};

struct Stream {
    std::deque<Work> queue;
    uint64_t queued = 0, done = 0;
    // Whether it computes, or copies alone.
    bool computes = false;

    // As much of it at once as the order asks for.
    void add(std::function<void()> act, Point after = {});
    void step();
    Point now() { return {this, queued}; }
};

// What memory is full of that nobody wrote: of it every format's number is none.
const int POISON = 0xff;

// Blocks of memory by where they begin.
struct Memory {
    std::map<uintptr_t, size_t> blocks;

    // Whether so many bytes from there on lie in one.
    bool holds(uintptr_t at, size_t bytes) const;
    void *add(size_t bytes);
    bool remove(uintptr_t at);
};

extern Memory memory, pinned;

Stream &stream(void *handle);
