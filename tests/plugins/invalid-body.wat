;; load: not-a-component
;; A function that promises a number and gives none.
(component
  (core module (func (result i32))))
