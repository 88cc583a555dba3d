"""Times llama.cpp (package llama-cpp-python): arguments are a model file, a number of threads and the context of rows.

Reads `rows N` (N rows behind the context, logits of each) or `prompt N` (N tokens from nothing, logits of the last) and
answers each with the seconds that it took.
"""

import sys
import time

import llama_cpp as llama

path, threads, context = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
# Held by a name: the library keeps only a pointer.
silent = llama.llama_log_callback(lambda *_: None)
llama.llama_log_set(silent, None)
llama.llama_backend_init()
model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
params = llama.llama_context_default_params()
params.n_ctx = 2048
params.n_batch = params.n_ubatch = 512
params.n_threads = params.n_threads_batch = threads
ctx = llama.llama_init_from_model(model, params)
if not ctx:
    sys.exit(f"llama.cpp cannot load {path}")
memory = llama.llama_get_memory(ctx)
vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
batch = llama.llama_batch_init(512, 0, 1)


def decode(first, count, every_row):
    batch.n_tokens = count
    for i in range(count):
        batch.token[i] = ((first + i) * 7919 + 13) % (vocabulary - 3) + 3
        batch.pos[i] = first + i
        batch.n_seq_id[i] = 1
        batch.seq_id[i][0] = 0
        batch.logits[i] = every_row or i == count - 1
    begin = time.perf_counter()
    if llama.llama_decode(ctx, batch):
        sys.exit(f"llama.cpp cannot decode {count} tokens")
    llama.llama_synchronize(ctx)
    return time.perf_counter() - begin


held = 0
print(llama.__version__, flush=True)
for line in sys.stdin:
    what, count = line.split()
    start = context if what == "rows" else 0
    if held < start:
        decode(0, start, False)
    llama.llama_memory_seq_rm(memory, 0, start, -1)
    seconds = decode(start, int(count), what == "rows")
    held = start
    llama.llama_memory_seq_rm(memory, 0, start, -1)
    print(seconds, flush=True)
