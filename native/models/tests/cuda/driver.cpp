// A CUDA driver whose device is the CPU: what `cudarc` calls of libcuda, checked more strictly than a device checks it. It
// computes with the kernels' own sources; its times say nothing.

#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "../kernels/on_host.hpp"
#include "device.hpp"
#include "table.hpp"

namespace {

typedef uint64_t Address;

struct Event {
    Point point;
};

struct Function {
    std::string name;
    Kernel kernel;
};

// The device's one context.
int context;
thread_local void *current = nullptr;
std::set<Stream *> streams;

const std::unordered_map<std::string, Kernel> &kernels() {
    static const auto all = [] {
        std::unordered_map<std::string, Kernel> all;
        for (auto table : {own_kernels(), candle_kernels()}) all.insert(table.begin(), table.end());
        return all;
    }();
    return all;
}

// A block that is freed stays for a while: whoever still reads it reads no numbers.
void bury(Address at, size_t bytes) {
    static size_t buried = 0;
    static std::vector<void *> graves;
    std::memset((void *)at, POISON, bytes);
    graves.push_back((void *)at);
    buried += bytes;
    if (buried > ((size_t)512 << 20)) {
        for (void *grave : graves) std::free(grave);
        graves.clear();
        buried = 0;
    }
}

int checked(const char *what, const Memory &where, uintptr_t at, size_t bytes) {
    if (bytes == 0 || where.holds(at, bytes)) return SUCCESS;
    return refused(ILLEGAL_ADDRESS, "%s: %zu bytes at %#lx are no memory of the device", what, bytes, (long)at);
}

void finish() {
    stream(nullptr).now().reach();
    for (Stream *each : streams) each->now().reach();
}

}  // namespace

extern "C" {

int cuInit(unsigned) { return SUCCESS; }

int cuGetErrorName(int error, const char **name) {
    *name = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "an error that the software driver told of";
    return SUCCESS;
}

int cuGetErrorString(int error, const char **text) { return cuGetErrorName(error, text); }

int cuDeviceGetCount(int *count) {
    *count = 1;
    return SUCCESS;
}

int cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return ordinal == 0 ? SUCCESS : INVALID_DEVICE;
}

int cuDeviceGetName(char *name, int size, int) {
    std::snprintf(name, size, "the CPU, by a software driver");
    return SUCCESS;
}

int cuDeviceTotalMem_v2(size_t *bytes, int) {
    *bytes = (size_t)4 << 30;
    return SUCCESS;
}

int cuDeviceGetAttribute(int *value, int attribute, int) {
    const int MAJOR = 75, MINOR = 76, PROCESSORS = 16, MEMORY_POOLS = 115;
    switch (attribute) {
        case MAJOR: *value = 9; break;
        case MINOR: *value = 0; break;
        case PROCESSORS: *value = 1; break;
        case MEMORY_POOLS: *value = 1; break;
        default: return refused(NOT_SUPPORTED, "no attribute %d of the device", attribute);
    }
    return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void **made, int) {
    *made = &context;
    return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }

int cuCtxGetCurrent(void **now) {
    *now = current;
    return SUCCESS;
}

int cuCtxSetCurrent(void *next) {
    current = next;
    return SUCCESS;
}

int cuCtxSynchronize() {
    CALL;
    finish();
    return SUCCESS;
}

int cuDeviceGetDefaultMemPool(void **pool, int) {
    *pool = &memory;
    return SUCCESS;
}

int cuMemPoolSetAttribute(void *, int, void *) { return SUCCESS; }

// Streams and events.

int cuStreamCreate(void **made, unsigned) {
    CALL;
    *made = *streams.insert(new Stream).first;
    return SUCCESS;
}

int cuStreamDestroy_v2(void *handle) {
    CALL;
    stream(handle).now().reach();
    // Events may still name it.
    streams.erase(&stream(handle));
    return SUCCESS;
}

int cuStreamSynchronize(void *handle) {
    CALL;
    stream(handle).now().reach();
    return SUCCESS;
}

int cuEventCreate(void **made, unsigned) {
    *made = new Event;
    return SUCCESS;
}

int cuEventDestroy_v2(void *event) {
    delete (Event *)event;
    return SUCCESS;
}

int cuEventRecord(void *event, void *handle) {
    CALL;
    ((Event *)event)->point = stream(handle).now();
    return SUCCESS;
}

int cuEventQuery(void *event) {
    CALL;
    const Point &point = ((Event *)event)->point;
    // Time passes: else who asks on and on would never hear of it.
    if (!point.reached()) point.stream->step();
    return point.reached() ? SUCCESS : NOT_READY;
}

int cuEventSynchronize(void *event) {
    CALL;
    ((Event *)event)->point.reach();
    return SUCCESS;
}

int cuStreamWaitEvent(void *handle, void *event, unsigned) {
    CALL;
    stream(handle).add([] {}, ((Event *)event)->point);
    return SUCCESS;
}

// Memory.

int cuMemAllocAsync(Address *made, size_t bytes, void *) {
    CALL;
    if (bytes == 0) return refused(INVALID_VALUE, "memory of no bytes");
    *made = (Address)memory.add(bytes);
    return *made ? SUCCESS : OUT_OF_MEMORY;
}

int cuMemFreeAsync(Address at, void *handle) {
    CALL;
    auto block = memory.blocks.find(at);
    if (block == memory.blocks.end()) return refused(INVALID_VALUE, "%#lx is freed, and was not allocated", (long)at);
    size_t bytes = block->second;
    memory.remove(at);
    stream(handle).add([=] { bury(at, bytes); });
    return SUCCESS;
}

int cuMemHostAlloc(void **made, size_t bytes, unsigned) {
    CALL;
    if (bytes == 0) return refused(INVALID_VALUE, "pinned memory of no bytes");
    *made = pinned.add(bytes);
    return *made ? SUCCESS : OUT_OF_MEMORY;
}

int cuMemFreeHost(void *at) {
    CALL;
    if (!pinned.remove((uintptr_t)at)) return refused(INVALID_VALUE, "%p is no pinned memory", at);
    std::free(at);
    return SUCCESS;
}

int cuMemsetD8Async(Address at, unsigned char value, size_t bytes, void *handle) {
    CALL;
    if (int bad = checked("memset", memory, at, bytes)) return bad;
    stream(handle).add([=] { std::memset((void *)at, value, bytes); });
    return SUCCESS;
}

// Of memory that is not pinned a device takes a copy before the call returns.
int cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, void *handle) {
    CALL;
    if (int bad = checked("copy to the device", memory, to, bytes)) return bad;
    if (pinned.holds((uintptr_t)from, bytes)) {
        stream(handle).add([=] { std::memcpy((void *)to, from, bytes); });
    } else {
        auto staged = std::make_shared<std::vector<char>>((const char *)from, (const char *)from + bytes);
        stream(handle).add([=] { std::memcpy((void *)to, staged->data(), bytes); });
    }
    return SUCCESS;
}

// To memory that is not pinned the copy is made when the call returns.
int cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, void *handle) {
    CALL;
    if (int bad = checked("copy from the device", memory, from, bytes)) return bad;
    stream(handle).add([=] { std::memcpy(to, (const void *)from, bytes); });
    if (!pinned.holds((uintptr_t)to, bytes)) stream(handle).now().reach();
    return SUCCESS;
}

int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void *handle) {
    CALL;
    if (int bad = checked("copy from the device", memory, from, bytes)) return bad;
    if (int bad = checked("copy to the device", memory, to, bytes)) return bad;
    stream(handle).add([=] { std::memmove((void *)to, (const void *)from, bytes); });
    return SUCCESS;
}

// Kernels.

// Whatever text it is of: kernels have names of their own.
int cuModuleLoadData(void **made, const void *) {
    *made = &memory;
    return SUCCESS;
}

int cuModuleUnload(void *) { return SUCCESS; }

int cuModuleGetFunction(void **made, void *, const char *name) {
    CALL;
    auto kernel = kernels().find(name);
    if (kernel == kernels().end()) return refused(NOT_FOUND, "no kernel `%s` in its table", name);
    // Never freed: nobody says when it is not wanted any more.
    *made = new Function{name, kernel->second};
    return SUCCESS;
}

int cuLaunchKernel(void *handle, unsigned x, unsigned y, unsigned z, unsigned width, unsigned height, unsigned depth,
                   unsigned shared, void *on, void **arguments, void **) {
    CALL;
    const Function &function = *(Function *)handle;
    const char *name = function.name.c_str();
    Index grid{x, y, z}, threads{width, height, depth};
    if (grid.count() == 0 || x > 0x7fffffff || y > 0xffff || z > 0xffff) {
        return refused(INVALID_VALUE, "%s: a grid of %u × %u × %u", name, x, y, z);
    }
    if (threads.count() == 0 || threads.count() > 1024 || depth > 64) {
        return refused(INVALID_VALUE, "%s: blocks of %u × %u × %u threads", name, width, height, depth);
    }
    if (shared != 0) return refused(NOT_SUPPORTED, "%s: %u bytes of shared memory at launch", name, shared);
    for (size_t i : function.kernel.addresses()) {
        Address at = *(Address *)arguments[i];
        if (at != 0 && !memory.holds(at, 1)) {
            return refused(ILLEGAL_ADDRESS, "%s: argument %zu is %#lx, no memory of the device", name, i, (long)at);
        }
    }
    stream(on).computes = true;
    bool together = function.kernel.together;
    auto body = function.kernel.bind(arguments);
    stream(on).add([=] { host::launch(grid, threads, body, together); });
    return SUCCESS;
}

}  // extern "C"
