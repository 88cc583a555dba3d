;; acceptance, judge: fuel
;; Writes its memory full again and again.
(module
  (import "[export]specula:policy/acceptance@0.1.0" "[resource-new]session" (func $new-session (param i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
  (func (export "specula:policy/acceptance@0.1.0#open") (param i32 i32 i32 i32 i32 i32) (result i32)
    (i32.const 1024))
  (func (export "specula:policy/acceptance@0.1.0#[constructor]session") (result i32)
    (call $new-session (i32.const 7)))
  (func (export "specula:policy/acceptance@0.1.0#[method]session.judge") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    (drop (memory.grow (i32.const 200)))
    (loop $again (memory.fill (i32.const 0) (i32.const 1) (i32.const 13000000)) (br $again))
    (i32.const 1024))
  (func (export "specula:policy/acceptance@0.1.0#[method]session.commit") (param i32 i32 i32) (result i32)
    (i32.const 1024))
  (func (export "specula:policy/acceptance@0.1.0#[method]session.fork") (param i32) (result i32)
    (call $new-session (i32.const 7))))
