;; load: feature-not-allowed
;; Uses shared memory.
(component
  (core module (memory 1 1 shared)))
