;; acceptance, judge: host-calls
;; Writes to the log for ever.
(module
  (import "specula:policy/context@0.1.0" "log" (func $log (param i32 i32)))
  (import "[export]specula:policy/acceptance@0.1.0" "[resource-new]session" (func $new-session (param i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
  (func (export "specula:policy/acceptance@0.1.0#open") (param i32 i32 i32 i32 i32 i32) (result i32)
    (i32.const 1024))
  (func (export "specula:policy/acceptance@0.1.0#[constructor]session") (result i32)
    (call $new-session (i32.const 7)))
  (func (export "specula:policy/acceptance@0.1.0#[method]session.judge") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    (loop $again (call $log (i32.const 0) (i32.const 16)) (br $again))
    (i32.const 1024))
  (func (export "specula:policy/acceptance@0.1.0#[method]session.commit") (param i32 i32 i32) (result i32)
    (i32.const 1024))
  (func (export "specula:policy/acceptance@0.1.0#[method]session.fork") (param i32) (result i32)
    (call $new-session (i32.const 7))))
