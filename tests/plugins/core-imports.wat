;; load: not-a-component
;; A core module that wants something from its host, but no component.
(module
  (import "env" "abort" (func)))
