;; load: feature-not-allowed
;; Throws exceptions.
(component
  (core module (tag $t) (func (throw $t))))
