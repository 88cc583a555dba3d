;; sampling, adjust: length-mismatch
;; Biases more tokens than there are.
(module
  (import "specula:policy/rows@0.1.0" "bias-mask" (func $bias-mask (param i32 i32 i32 f32)))
  (import "[export]specula:policy/sampling@0.1.0" "[resource-new]session" (func $new-session (param i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
  (func (export "specula:policy/sampling@0.1.0#open") (param i32 i32 i32 i32 i32 i32) (result i32)
    (i32.const 1024))
  (func (export "specula:policy/sampling@0.1.0#[constructor]session") (result i32)
    (call $new-session (i32.const 7)))
  (func (export "specula:policy/sampling@0.1.0#[method]session.adjust") (param i32 i32 i32 i32) (result i32)
    (call $bias-mask (i32.const 0) (i32.const 8192) (i32.const 3) (f32.const 1))
    (i32.const 1024))
  (func (export "specula:policy/sampling@0.1.0#[method]session.commit") (param i32 i32 i32) (result i32)
    (i32.const 1024))
  (func (export "specula:policy/sampling@0.1.0#[method]session.fork") (param i32) (result i32)
    (call $new-session (i32.const 7))))
