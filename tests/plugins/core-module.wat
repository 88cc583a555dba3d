;; load: not-a-component
;; A core module that no policy was compiled to.
(module (memory 1))
