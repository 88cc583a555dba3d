;; load: version-unknown
;; Wants a later interface.
(component
  (import "specula:policy/context@1.0.0" (instance)))
