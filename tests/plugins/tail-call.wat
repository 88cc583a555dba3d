;; load: feature-not-allowed
;; Uses tail calls.
(component
  (core module (func $f (return_call $f))))
