;; laws sampling, causal: self-test-failed
;; Edits the first row by how many draft tokens are behind it.
(module
  (import "specula:policy/rows@0.1.0" "keep-top-k" (func $keep-top-k (param i32 i32)))
  (import "[export]specula:policy/sampling@0.1.0" "[resource-new]session" (func $new-session (param i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
  (func (export "specula:policy/sampling@0.1.0#open") (param i32 i32 i32 i32 i32 i32) (result i32)
    (i32.const 1024))
  (func (export "specula:policy/sampling@0.1.0#[constructor]session") (result i32)
    (call $new-session (i32.const 7)))
  (func (export "specula:policy/sampling@0.1.0#[method]session.adjust") (param i32 i32 i32 i32) (result i32)
    (if (i32.ne (local.get 2) (local.get 3)) (then (call $keep-top-k (local.get 3) (i32.const 2))))
    (i32.const 1024))
  (func (export "specula:policy/sampling@0.1.0#[method]session.commit") (param i32 i32 i32) (result i32)
    (i32.const 1024))
  (func (export "specula:policy/sampling@0.1.0#[method]session.fork") (param i32) (result i32)
    (call $new-session (i32.const 7))))
