;; load: feature-not-allowed
;; Uses typed references to functions.
(component
  (core module (type $t (func)) (func (param (ref $t)) (call_ref $t (local.get 0)))))
