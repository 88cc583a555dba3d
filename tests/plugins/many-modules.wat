;; load: structure-limit
;; Nine core modules.
(component
  (core module) (core module) (core module) (core module) (core module) (core module) (core module) (core module)
  (core module))
