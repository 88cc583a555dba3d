// Kernels by name, with how to call them: a launch names its arguments by their addresses, and the kernel's own type says what
// lies there.

#pragma once

#include <functional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

struct Kernel {
    // Whether threads of a block wait for each other.
    bool together;
    // Takes the arguments, as a launch does.
    std::function<void()> (*bind)(void **arguments);
    // Which arguments are addresses on the device.
    std::vector<size_t> (*addresses)();
};

template <auto F>
struct Callable;

template <typename... A, void (*F)(A...)>
struct Callable<F> {
    template <size_t... I>
    static std::function<void()> bind(void **arguments, std::index_sequence<I...>) {
        auto values = std::make_tuple(*(std::remove_cv_t<A> *)arguments[I]...);
        return [values] { std::apply(F, values); };
    }
    static std::function<void()> bound(void **arguments) { return bind(arguments, std::index_sequence_for<A...>()); }
    static std::vector<size_t> addresses() {
        std::vector<size_t> at;
        size_t i = 0;
        ((std::is_pointer_v<A> ? at.push_back(i++) : (void)i++), ...);
        return at;
    }
    static Kernel kernel(bool together) { return Kernel{together, bound, addresses}; }
};

#define ALONE(NAME) {#NAME, Callable<NAME>::kernel(false)}
#define TOGETHER(NAME) {#NAME, Callable<NAME>::kernel(true)}

typedef std::vector<std::pair<std::string, Kernel>> Kernels;

Kernels own_kernels();
Kernels candle_kernels();
