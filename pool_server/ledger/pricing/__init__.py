"""What an exchange would have cost at the provider's API list price, and what a subscription costs a month.

The table is the data file beside this module; `[prices]` and `[subscriptions]` in the settings win over it.
"""

from __future__ import annotations

from pool_server.ledger.pricing.prices import OLD_AFTER_DAYS, PriceFacts, Prices, Quote

__all__ = ["OLD_AFTER_DAYS", "PriceFacts", "Prices", "Quote"]
