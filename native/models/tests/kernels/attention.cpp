// Reads queries, a cache and paths from standard input, writes what is attended to standard output.

#include "on_host.hpp"

#include "../../src/cuda/attention.cu"

int main() {
    std::vector<u32> head = host::read<u32>(6);
    u32 rows = head[0], slots = head[1], heads = head[2], kv_heads = head[3], dim = head[4];
    std::vector<u32> spans = host::read<u32>(3 * rows), extra = host::read<u32>(head[5]);
    std::vector<float> q = host::read<float>((size_t)rows * heads * dim);
    std::vector<float> k = host::read<float>((size_t)slots * kv_heads * dim);
    std::vector<float> v = host::read<float>(k.size());
    std::vector<float> out(q.size());
    host::launch(Index{heads, rows}, Index{WARPS * LANES}, [&] {
        tree_attention_f32(q.data(), k.data(), v.data(), spans.data(), extra.data(), out.data(), heads, kv_heads, dim,
                           1.0f / std::sqrt((float)dim));
    });
    host::write(out);
}
