// The kernels of this crate.

#include "../kernels/on_host.hpp"
#include "include/narrow.hpp"
#include "table.hpp"

namespace reduce {
#include "../../src/cuda/reduce.cu"
}

#define __CUDACC__
namespace attention {
#include "../../src/cuda/attention.cu"
}

Kernels own_kernels() {
    using namespace attention;
    using namespace reduce;
    return {
        TOGETHER(best_of_chunks),     TOGETHER(best_of_rows),         TOGETHER(tree_attention_f32),
        TOGETHER(tree_attention_f16), TOGETHER(tree_attention_bf16),
    };
}
