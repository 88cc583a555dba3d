;; load: structure-limit
;; Two memories.
(component
  (core module (memory 1) (memory 1)))
