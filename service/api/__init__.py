"""HTTP: routers, schemas, problem bodies. No SQL, no torch; what the service does lies in `service.usecases`.

schemas        request and response models, per resource
deps           what endpoints are given: sessions, settings, stores
problems       every error as an RFC 9457 problem body
strict_json    JSON as the standard has it: no NaN, no lone surrogates
body_limit     refuses bodies that are too large while they arrive
paging         cursors of lists
downloads      artefacts with ETag and byte ranges
"""
