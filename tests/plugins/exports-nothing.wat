;; load: export-missing
;; Does nothing that a host could call.
(component)
