"""The scoring application that users talk to. It knows nothing of Shipmate; they meet in the app contract.

`server` starts it, `web` holds the routes, `lifecycle` says whether it is ready, `places` how much goes on at once,
`model` and `images` do the work.
"""

CONTRACT = "1"
"""The app contract this code speaks: image label `dev.shipmate.contract`, and `contract` in a model's manifest."""
