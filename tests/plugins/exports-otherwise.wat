;; load: export-missing
;; Exports something that is no policy.
(component
  (instance $i)
  (export "specula:policy/types@0.1.0" (instance $i)))
