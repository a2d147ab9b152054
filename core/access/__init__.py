"""Who may, and how often.

In: tokens, addresses, and the moment of a request. Out: a `Principal` or Unauthorised; a `Decision` with how long to wait.

    identity        whose a token is                               keys             public keys, PEM and JWK Sets
    scopes          what a token allows
    limits          token buckets and their headers                addresses        clients behind trusted proxies
    penalties       who has flooded, and stays out for a while     admission        all that is asked before a request is served

Uses config (what is configured of keys), messages and the ground. Keys are fetched, and shared limits asked, by services.
"""
