#include "device.hpp"

#include <cstdlib>
#include <cstring>
#include <string>

std::recursive_mutex calls;
Memory memory, pinned;

namespace {

enum Order {
    // As it is queued.
    NOW,
    // What only copies as soon as it may, what computes as late as it can.
    COPIES_FIRST,
    // The other way round.
    COPIES_LAST,
};

Order order() {
    static const Order order = [] {
        const char *named = std::getenv("SPECULA_CUDA_ORDER");
        std::string name = named ? named : "now";
        if (name == "copies-first") return COPIES_FIRST;
        if (name == "copies-last") return COPIES_LAST;
        if (name != "now") {
            std::fprintf(stderr, "SPECULA_CUDA_ORDER=%s is none of now, copies-first, copies-last\n", named);
            std::exit(2);
        }
        return NOW;
    }();
    return order;
}

}  // namespace

bool Point::reached() const { return !stream || stream->done >= at; }

void Point::reach() const {
    while (!reached()) stream->step();
}

void Stream::step() {
    Work work = std::move(queue.front());
    queue.pop_front();
    work.after.reach();
    work.act();
    done++;
}

void Stream::add(std::function<void()> act, Point after) {
    queue.push_back({std::move(act), after});
    queued++;
    if (order() == NOW || computes == (order() == COPIES_LAST)) now().reach();
}

bool Memory::holds(uintptr_t at, size_t bytes) const {
    auto next = blocks.upper_bound(at);
    if (next == blocks.begin()) return false;
    auto [begin, size] = *--next;
    return at - begin <= size && bytes <= size - (at - begin);
}

void *Memory::add(size_t bytes) {
    // As a device's are aligned.
    void *block;
    if (posix_memalign(&block, 256, bytes)) return nullptr;
    std::memset(block, POISON, bytes);
    blocks[(uintptr_t)block] = bytes;
    return block;
}

bool Memory::remove(uintptr_t at) { return blocks.erase(at) == 1; }

Stream &stream(void *handle) {
    static Stream legacy;
    return handle ? *(Stream *)handle : legacy;
}
