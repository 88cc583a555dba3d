;; load: interface-mismatch
;; Has the interface's name and nothing in it.
(component
  (instance $i)
  (export "specula:policy/acceptance@0.1.0" (instance $i)))
