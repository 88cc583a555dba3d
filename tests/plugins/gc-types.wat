;; load: feature-not-allowed
;; Uses garbage-collected types.
(component
  (core module (type (struct (field i32)))))
