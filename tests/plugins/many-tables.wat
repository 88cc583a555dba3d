;; load: structure-limit
;; Five tables.
(component
  (core module (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref)))
