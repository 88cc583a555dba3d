;; load: import-not-allowed
;; Wants the environment and a network.
(component
  (import "wasi:cli/environment@0.2.12" (instance (export "get-arguments" (func (result (list string))))))
  (import "specula:policy/network@0.1.0" (instance)))
