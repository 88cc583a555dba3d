;; load: version-unknown
;; Made for a later interface.
(component
  (instance $i)
  (export "specula:policy/acceptance@0.2.0" (instance $i)))
