;; stopping, observe: stop
;; Ends the text with a reason that would colour a terminal.
(module
  (import "[export]specula:policy/stopping@0.1.0" "[resource-new]session" (func $new-session (param i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 16) "\1b[31mred\0a\07")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
  (func (export "specula:policy/stopping@0.1.0#open") (param i32 i32 i32 i32 i32 i32) (result i32)
    (i32.const 1024))
  (func (export "specula:policy/stopping@0.1.0#[constructor]session") (result i32)
    (call $new-session (i32.const 7)))
  (func (export "specula:policy/stopping@0.1.0#[method]session.observe") (param i32 i32 i32 i32 i32 i32 i32) (result i32)
    (i32.store8 (i32.const 1028) (i32.const 1))
    (i32.store (i32.const 1032) (i32.const 1))
    (i32.store (i32.const 1036) (i32.const 16))
    (i32.store (i32.const 1040) (i32.const 10))
    (i32.const 1024))
  (func (export "specula:policy/stopping@0.1.0#[method]session.fork") (param i32) (result i32)
    (call $new-session (i32.const 7))))
