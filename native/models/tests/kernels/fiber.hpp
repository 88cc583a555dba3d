// Threads of a kernel as fibers: each has a stack, and runs until it gives way.

#pragma once

#include <cstddef>
#include <vector>

namespace host {

#if defined(__x86_64__)

// Leaves what a callee must preserve on the stack that is left, whose top goes to `from`, and goes on on the stack `to`. No
// system call, of which a `swapcontext` has two.
extern "C" void specula_switch(void **from, void *to);
asm(R"(
    .pushsection .text
    .weak specula_switch
    .type specula_switch, @function
specula_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
    .popsection
)");

class Fiber {
    void *top = nullptr;

public:
    // The next `enter` calls `body`, which must not return.
    void begin(char *stack, size_t size, void (*body)()) {
        void **at = (void **)((size_t)(stack + size) & ~(size_t)15);
        *--at = nullptr;  // A call leaves the stack 8 beside 16.
        *--at = (void *)body;
        at -= 6;
        top = at;
    }
    // Goes on in `to` until it enters this one.
    void enter(Fiber &to) { specula_switch(&top, to.top); }
};

#else

}  // namespace host

#include <ucontext.h>

namespace host {

class Fiber {
    ucontext_t context;

public:
    void begin(char *stack, size_t size, void (*body)()) {
        getcontext(&context);
        context.uc_stack.ss_sp = stack;
        context.uc_stack.ss_size = size;
        context.uc_link = nullptr;
        makecontext(&context, body, 0);
    }
    void enter(Fiber &to) { swapcontext(&context, &to.context); }
};

#endif

}  // namespace host
