;; load: structure-limit
;; Components in components.
(component (component (component (component (component (component))))))
