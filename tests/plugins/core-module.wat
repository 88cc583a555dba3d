;; load: export-missing
;; A core module that no policy was compiled to.
(module (memory 1))
