// Reads rows from standard input, writes their best tokens to standard output: as `cuda/reduce.rs` launches the kernels.

#include "on_host.hpp"

#include "../../src/cuda/reduce.cu"

int main() {
    std::vector<u32> head = host::read<u32>(9);
    u32 rows = head[0], vocab = head[1], noisy = head[2], count = head[3], choice = head[4], low = head[5], high = head[6];
    bool summed = head[8];
    float temperature = __uint_as_float(head[7]);
    std::vector<u32> positions = host::read<u32>(rows);
    std::vector<float> logits = host::read<float>((size_t)rows * vocab);
    u32 chunks = (vocab + CHUNK - 1) / CHUNK;
    std::vector<u32> tokens(rows * chunks * count), scores(tokens.size()), out_tokens(rows * count), out_scores(rows * count);
    std::vector<float> sums(2 * rows * chunks);
    host::launch(Index{chunks, rows}, Index{THREADS}, [&] {
        best_of_chunks(logits.data(), vocab, positions.data(), noisy, temperature, low, high, choice, count, tokens.data(),
                       scores.data(), summed ? sums.data() : nullptr);
    });
    host::launch(Index{rows}, Index{THREADS}, [&] {
        best_of_rows(tokens.data(), scores.data(), chunks * count, count, out_tokens.data(), out_scores.data());
    });
    host::write(out_tokens);
    host::write(out_scores);
    host::write(sums);
}
