;; load: feature-not-allowed
;; Uses 64-bit memory.
(component
  (core module (memory i64 1)))
