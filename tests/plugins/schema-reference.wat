;; configured, load: schema-refused
;; Its schema refers to itself.
(module
  (import "[export]specula:policy/acceptance@0.1.0" "[resource-new]session" (func $new-session (param i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 3072) "\00\10\00\00\0d\00\00\00")
  (data (i32.const 4096) "{\"$ref\": \"#\"}")
  (func (export "specula:policy/configuration@0.1.0#schema") (result i32) (i32.const 3072))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
  (func (export "specula:policy/acceptance@0.1.0#open") (param i32 i32 i32 i32 i32 i32) (result i32)
    (i32.const 1024))
  (func (export "specula:policy/acceptance@0.1.0#[constructor]session") (result i32)
    (call $new-session (i32.const 7)))
  (func (export "specula:policy/acceptance@0.1.0#[method]session.judge") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    (i32.const 1024))
  (func (export "specula:policy/acceptance@0.1.0#[method]session.commit") (param i32 i32 i32) (result i32)
    (i32.const 1024))
  (func (export "specula:policy/acceptance@0.1.0#[method]session.fork") (param i32) (result i32)
    (call $new-session (i32.const 7))))
